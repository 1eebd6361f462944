// ---- counters, and tables

panel('summary', '', 'strip', (body) => {
  const strip = element('div', { className: 'summary' });
  body.replaceWith(strip);
  let before = null;
  live((answer) => {
    const seconds = before ? answer.now - before.now : 0;
    const finished = (one) => one.transitions;
    const sum = (name) => answer.rows.reduce((total, worker) => total + worker[name], 0);
    const limit = sum('memory_limit');
    const tasks = answer.tasks;
    const facts = [
      [formatCount(answer.worker_count), `workers, ${formatCount(answer.threads)} threads`],
      [formatCount(Object.values(tasks).reduce((total, count) => total + count, 0)), 'tasks'],
      [formatCount(tasks.processing), 'processing'],
      [formatCount(tasks.waiting + tasks.queued), 'waiting or queued'],
      [formatCount(tasks.memory), 'in memory'],
      ...(tasks['no-worker'] ? [[formatCount(tasks['no-worker']), 'without a worker', 'bad']] : []),
      ...(tasks.erred ? [[formatCount(tasks.erred), 'erred', 'bad']] : []),
      [formatBytes(sum('process')), limit ? `of ${formatBytes(limit)}` : 'memory'],
      [formatSeconds(answer.occupancy), 'of work sent out'],
      [before && seconds > 0 ? `${formatCount((finished(answer) - finished(before)) / seconds)}/s` : '…', 'transitions'],
      [formatCount(answer.clients), 'clients'],
      [formatSeconds(answer.now - answer.started), `up, at ${answer.address}`],
    ];
    strip.replaceChildren(...facts.map(([figure, what, kind]) =>
      element('div', { className: kind ?? '' }, element('b', { textContent: figure }), element('span', { textContent: what }))));
    before = answer;
  });
});

const tableRowsMax = 1000;

// A table that is sorted by a click on its head; `columns` are `[title, value(worker), show(worker)]`.
function sorted(body, columns, note) {
  let [by, down] = [0, false];
  const table = element('table', { className: 'live' });
  const head = element('tr');
  const rows = element('tbody');
  columns.forEach(([title], at) => head.append(element('th', {
    textContent: title, onclick: () => { down = by === at ? !down : true; by = at; fill(); },
  })));
  table.append(element('thead', {}, head), rows);
  body.append(table);
  let all = [];
  function fill() {
    const value = columns[by][1];
    all.sort((a, b) => {
      const [x, y] = [value(a), value(b)];
      const order = typeof x === 'string' ? x.localeCompare(y, 'en', { numeric: true }) : x - y;
      return down ? -order : order;
    });
    rows.replaceChildren(...all.slice(0, tableRowsMax).map((row) =>
      element('tr', {}, ...columns.map(([, get, show]) => {
        const shown = show ? show(row) : get(row);
        return element('td', {}, shown instanceof Node ? shown : String(shown));
      }))));
    if (all.length > tableRowsMax) note(`${tableRowsMax} of ${formatCount(all.length)}`);
  }
  return (rows) => { all = [...rows]; fill(); };
}

function meter(value, limit, text) {
  const fill = element('i');
  const share = limit ? Math.min(1, value / limit) : 0;
  fill.style.width = `${100 * share}%`;
  if (share > 0.8) fill.style.background = paint.bad;
  return element('span', { title: text }, element('span', { className: 'meter' }, fill), ` ${text}`);
}

panel('workers', 'Workers', 'wide tall', (body, { note }) => {
  const link = (worker) => element('a', { href: root + workerPage(worker.address), textContent: workerLabel(worker) });
  const fill = sorted(body, [
    ['worker', workerLabel, link],
    ['address', (worker) => worker.address],
    ['status', (worker) => worker.status],
    ['threads', (worker) => worker.nthreads],
    ['processing', (worker) => worker.processing, (worker) => formatCount(worker.processing)],
    ['occupancy', (worker) => worker.occupancy, (worker) => formatSeconds(worker.occupancy)],
    ['results', (worker) => worker.in_memory, (worker) => formatCount(worker.in_memory)],
    ['cpu', (worker) => worker.cpu, (worker) => meter(worker.cpu, 100 * worker.nthreads, `${Math.round(worker.cpu)} %`)],
    ['memory', (worker) => worker.process, (worker) => meter(worker.process, worker.memory_limit, formatBytes(worker.process))],
    ['limit', (worker) => worker.memory_limit, (worker) => (worker.memory_limit ? formatBytes(worker.memory_limit) : 'none')],
    ['on disk', (worker) => worker.spilled, (worker) => formatBytes(worker.spilled)],
    ['network in', (worker) => worker.net_read, (worker) => formatRate(worker.net_read)],
    ['files', (worker) => worker.fds, (worker) => formatCount(worker.fds)],
    ['last seen', (worker) => worker.last_seen, (worker) => `${worker.last_seen.toFixed(1)} s`],
  ], note);
  let filled = 0;
  live((answer) => {
    // A table that changes under the pointer cannot be clicked.
    if (performance.now() - filled > 1000) { filled = performance.now(); fill(answer.rows); }
  });
});

function eventTable(body, note, address) {
  const table = element('table', { className: 'live text' });
  body.append(table);
  source(address, () => address, 1500).read((answer) => {
    note(`the newest ${answer.events.length}`);
    table.replaceChildren(element('tr', {}, ...['when', 'topic', 'event'].map((title) => element('th', { textContent: title }))),
      ...answer.events.map(([at, topic, text]) => element('tr', {},
        element('td', { textContent: new Date(at * 1e3).toLocaleTimeString('en-GB') }), element('td', { textContent: topic }), element('td', { textContent: text }))));
  });
}
panel('events', 'Events', 'full', (body, { note }) => eventTable(body, note, 'json/events.json'));
panel('events-stealing', 'Work stealing', 'wide tall', (body, { note }) => eventTable(body, note, 'json/events.json?topic=stealing'));

// The text of another page, loaded again while it is looked at.
async function loadText(address, into) {
  const answer = await fetch(address, { cache: 'no-store' });
  const page = new DOMParser().parseFromString(await answer.text(), 'text/html').querySelector('main');
  const open = [...into.querySelectorAll('details')].map((details) => details.open);
  page.querySelectorAll('details').forEach((details, at) => { details.open = open[at] ?? false; });
  if (page.innerHTML !== into.innerHTML) into.replaceChildren(...page.childNodes);
}
async function refresh(address, into) {
  try {
    const reading = String(getSelection()) !== '';
    if (!document.hidden && !reading) { await loadText(address, into); noteAnswer(true, 0); }
  } catch {
    noteAnswer(false, 0);
  }
  setTimeout(() => refresh(address, into), 2000);
}
panel('exceptions', 'Tasks that raised', 'full', (body) => {
  const holder = element('div');
  body.append(holder);
  // Its links lead two folders up.
  const fix = () => holder.querySelectorAll('a').forEach((link) => {
    link.href = root + 'info/main/' + link.getAttribute('href').replace(/^.*\/info\/main\//, '');
  });
  const again = async () => {
    try { await loadText(`${root}info/main/exceptions.html`, holder); holder.querySelector('nav')?.remove(); fix(); } catch { noteAnswer(false, 0); }
    setTimeout(again, 2000);
  };
  again();
});

