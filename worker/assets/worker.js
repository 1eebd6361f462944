// A worker's own page: its figures, asked for once a second while somebody looks.
'use strict';

const history = [];
const bytes = (count) => {
  for (const [unit, shift] of [['GiB', 30], ['MiB', 20], ['kiB', 10]]) if (count >= 0.9 * 2 ** shift) return `${(count / 2 ** shift).toFixed(1)} ${unit}`;
  return `${count} B`;
};

function draw(id, value, most, colour, text) {
  const canvas = document.getElementById(id);
  const scale = devicePixelRatio || 1;
  const [width, height] = [canvas.clientWidth, canvas.clientHeight];
  canvas.width = width * scale;
  canvas.height = height * scale;
  const context = canvas.getContext('2d');
  context.scale(scale, scale);
  const style = getComputedStyle(document.documentElement);
  context.strokeStyle = style.getPropertyValue(colour);
  context.lineWidth = 2;
  context.beginPath();
  history.forEach((figures, at) => {
    context.lineTo(width - (history.length - 1 - at) * (width / 300), height - 4 - (Math.min(value(figures), most) / (most || 1)) * (height - 24));
  });
  context.stroke();
  context.fillStyle = style.getPropertyValue('--quiet');
  context.font = '12px system-ui, "DejaVu Sans", sans-serif';
  context.fillText(text, 2, 12);
}

function row(name, value) {
  const line = document.createElement('tr');
  for (const [tag, text] of [['th', name], ['td', value]]) line.append(Object.assign(document.createElement(tag), { textContent: text }));
  return line;
}

async function turn() {
  if (!document.hidden) {
    try {
      const now = await (await fetch('json/status.json', { cache: 'no-store' })).json();
      history.push(now);
      history.splice(0, Math.max(0, history.length - 300));
      draw('cpu', (figures) => figures.cpu, Math.max(100 * now.nthreads, ...history.map((figures) => figures.cpu)), '--bar', `${Math.round(now.cpu)} % of ${now.nthreads} threads`);
      const limit = now.memory_limit || Math.max(...history.map((figures) => figures.process_bytes));
      draw('memory', (figures) => figures.process_bytes, limit, '--warm', `${bytes(now.process_bytes)} of ${bytes(limit)}, ${bytes(now.managed_bytes)} in results`);
      document.getElementById('tasks').replaceChildren(...Object.entries(now.tasks).map(([state, count]) => row(state, count)));
    } catch {
      document.title = 'Dask worker: no answer';
    }
  }
  setTimeout(turn, 1000);
}

turn();
