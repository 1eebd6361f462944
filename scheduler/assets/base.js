// The dashboard's script. No library and no build step: the files beside this one are put together in the binary.
// A panel draws one thing; a source asks the scheduler for data, at a pace that suits both ends.
'use strict';

const root = document.body.dataset.root;
const tip = Object.assign(document.createElement('div'), { id: 'tip' });
const panels = new Map();

// Registers a panel: `make(body, tools)` fills its body once and says what it wants to be told.
function panel(name, title, shape, make) {
  panels.set(name, { title, shape, make });
}

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

// ---- figures for people

function formatBytes(count) {
  for (const [unit, shift] of [['TiB', 40], ['GiB', 30], ['MiB', 20], ['kiB', 10]]) {
    const whole = 2 ** shift;
    if (count >= 0.9 * whole) return `${(count / whole).toFixed(count < 100 * whole ? 1 : 0)} ${unit}`;
  }
  return `${Math.round(count)} B`;
}

function formatSeconds(seconds) {
  if (seconds >= 172800) return `${(seconds / 86400).toFixed(1)} days`;
  if (seconds >= 7200) return `${(seconds / 3600).toFixed(1)} h`;
  if (seconds >= 120) return `${(seconds / 60).toFixed(1)} min`;
  if (seconds >= 1) return `${seconds.toFixed(2)} s`;
  if (seconds >= 1e-3) return `${(seconds * 1e3).toFixed(1)} ms`;
  return `${(seconds * 1e6).toFixed(0)} µs`;
}

const formatCount = (count) => Math.round(count).toLocaleString('en');
const formatRate = (rate) => `${formatBytes(rate)}/s`;

// ---- colours

// A colour for a name, the same on every page: neighbours in hue differ in lightness too.
const colours = new Map();
function colourOf(name) {
  let colour = colours.get(name);
  if (!colour) {
    let hash = 2166136261;
    for (let i = 0; i < name.length; i++) hash = Math.imul(hash ^ name.charCodeAt(i), 16777619) >>> 0;
    // Red is for transfers.
    const hue = 25 + (hash % 310);
    colour = `hsl(${hue} ${55 + ((hash >>> 9) % 3) * 10}% ${46 + ((hash >>> 12) % 4) * 5}%)`;
    colours.set(name, colour);
  }
  return colour;
}

let paint = {};
function readPaint() {
  const style = getComputedStyle(document.documentElement);
  for (const name of ['text', 'quiet', 'line', 'soft', 'card', 'accent', 'warm', 'good', 'bad', 'busy', 'wait', 'queue']) {
    paint[name] = style.getPropertyValue(`--${name}`).trim();
  }
}

const stateOrder = ['memory', 'released', 'erred', 'processing', 'queued', 'waiting', 'no-worker'];
function stateColour(state) {
  return {
    memory: paint.good, released: paint.quiet, erred: paint.bad, processing: paint.busy, queued: paint.queue,
    waiting: paint.wait, 'no-worker': paint.warm,
  }[state] ?? paint.quiet;
}

// ---- light and dark

const redraws = new Set();
function applyTheme(theme) {
  if (theme) document.documentElement.dataset.theme = theme;
  else delete document.documentElement.dataset.theme;
  readPaint();
  for (const redraw of redraws) redraw();
}
function rememberedTheme() {
  const asked = new URLSearchParams(location.search).get('theme');
  if (asked === 'light' || asked === 'dark') return asked;
  try { return localStorage.getItem('dask-theme'); } catch { return null; }
}
function toggleTheme() {
  const dark = matchMedia('(prefers-color-scheme: dark)').matches;
  const now = document.documentElement.dataset.theme ?? (dark ? 'dark' : 'light');
  const next = now === 'dark' ? 'light' : 'dark';
  try { localStorage.setItem('dask-theme', next); } catch { /* a frame may have no storage */ }
  applyTheme(next);
}

// ---- sources

const pulse = document.getElementById('pulse');
let failures = 0;
function noteAnswer(ok, took) {
  failures = ok ? 0 : failures + 1;
  if (!pulse) return;
  pulse.classList.toggle('lost', failures > 1);
  pulse.textContent = failures > 1 ? 'no answer from the scheduler' : ok ? `live · ${Math.round(took)} ms` : pulse.textContent;
}

const sources = new Map();
// Asks again and again while the page is visible, one question at a time. A slow answer makes for a slower pace.
class Source {
  constructor(address, interval) {
    Object.assign(this, { address, interval, readers: new Set(), last: null, running: false });
  }
  read(reader) {
    this.readers.add(reader);
    if (this.last !== null) reader(this.last);
    if (!this.running) { this.running = true; this.turn(); }
  }
  async turn() {
    let pause = this.interval;
    if (!document.hidden) {
      const asked = performance.now();
      try {
        const answer = await fetch(root + this.address(), { cache: 'no-store' });
        if (!answer.ok) throw new Error(`${answer.status}`);
        this.last = await answer.json();
        noteAnswer(true, performance.now() - asked);
        for (const reader of this.readers) reader(this.last);
      } catch {
        noteAnswer(false, 0);
      }
      const took = performance.now() - asked;
      pause = Math.min(10000, Math.max(this.interval, 3 * took)) * (failures ? 2 : 1);
    }
    setTimeout(() => this.turn(), pause);
  }
}
function source(name, address, interval) {
  if (!sources.has(name)) sources.set(name, new Source(address, interval));
  return sources.get(name);
}

// The state of everything, with workers as objects.
let columns = null;
function live(reader) {
  source('live', () => 'json/live.json', 500).read((answer) => {
    if (!answer.rows) {
      columns = answer.worker_columns;
      answer.rows = answer.workers.map((row) => Object.fromEntries(columns.map((name, at) => [name, row[at]])));
    }
    reader(answer);
  });
}

// ---- canvases

// A canvas that fills its panel: `draw(context, width, height)` in CSS pixels, at most once per frame of the screen.
function canvas(body, draw) {
  const made = element('canvas');
  body.append(made);
  let asked = false;
  const now = () => {
    asked = false;
    const { clientWidth: width, clientHeight: height } = made;
    if (!width || !height) return;
    const scale = devicePixelRatio || 1;
    if (made.width !== Math.round(width * scale) || made.height !== Math.round(height * scale)) {
      made.width = Math.round(width * scale);
      made.height = Math.round(height * scale);
    }
    const context = made.getContext('2d');
    context.setTransform(scale, 0, 0, scale, 0, 0);
    context.clearRect(0, 0, width, height);
    context.font = '11px system-ui, "DejaVu Sans", sans-serif';
    draw(context, width, height);
  };
  const redraw = () => {
    if (!asked) { asked = true; requestAnimationFrame(now); }
  };
  new ResizeObserver(redraw).observe(body);
  redraws.add(redraw);
  return { node: made, redraw };
}

// Shows what lies under the pointer; a click follows its link.
function pointing(node, find) {
  let found = null;
  const hide = () => { tip.textContent = ''; found = null; node.style.cursor = ''; };
  node.addEventListener('pointermove', (event) => {
    const box = node.getBoundingClientRect();
    found = find(event.clientX - box.left, event.clientY - box.top);
    if (!found) return hide();
    tip.textContent = found.text;
    node.style.cursor = found.link ? 'pointer' : '';
    const { offsetWidth: width, offsetHeight: height } = tip;
    tip.style.left = `${Math.max(4, Math.min(event.clientX + 14, innerWidth - width - 8))}px`;
    tip.style.top = `${event.clientY + 18 + height > innerHeight ? event.clientY - height - 10 : event.clientY + 18}px`;
  });
  node.addEventListener('pointerleave', hide);
  node.addEventListener('click', () => {
    if (found?.act) found.act();
    else if (found?.link) location.href = root + found.link;
  });
}

function clip(context, text, width) {
  if (context.measureText(text).width <= width) return text;
  let [low, high] = [0, text.length];
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (context.measureText(text.slice(0, middle) + '…').width <= width) low = middle;
    else high = middle - 1;
  }
  return low > 1 ? text.slice(0, low) + '…' : '';
}

const workerPage = (address) => `info/worker/${encodeURIComponent(address)}.html`;
const taskPage = (key) => `info/task/${encodeURIComponent(key)}.html`;
const workerLabel = (worker) => (worker.name && worker.name !== worker.address ? worker.name : worker.address.replace(/^\w+:\/\//, ''));

