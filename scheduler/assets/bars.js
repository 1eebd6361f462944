// ---- bars: one row per worker, prefix or action

const rowsMax = 400;

// `rows(live)` gives `{ label, parts: [[value, colour, name]], max, mark, text, link }`; values share one scale unless a row
// has its own `max`.
function bars(body, note, rows, format) {
  let shown = [];
  let more = 0;
  const left = 132;
  const height = () => Math.max(6, Math.min(34, (body.clientHeight - 6) / Math.max(1, shown.length)));
  const view = canvas(body, (context, width) => {
    const step = height();
    const biggest = Math.max(1e-12, ...shown.map((row) => row.max ?? row.parts.reduce((sum, [value]) => sum + value, 0)));
    const room = width - left - 74;
    shown.forEach((row, at) => {
      const y = 4 + at * step;
      const top = row.max ?? biggest;
      context.fillStyle = paint.soft;
      context.fillRect(left, y, room, step - 3);
      let x = left;
      let sum = 0;
      for (const [value, colour] of row.parts) {
        const wide = Math.min(room - (x - left), (Math.max(0, value) / (top || 1)) * room);
        context.fillStyle = colour;
        context.fillRect(x, y, wide, step - 3);
        x += wide;
        sum += value;
      }
      if (row.mark && row.mark < top) {
        context.fillStyle = paint.bad;
        context.fillRect(left + (row.mark / top) * room, y, 1.5, step - 3);
      }
      if (step >= 11) {
        const base = y + (step - 3) / 2 + 4;
        context.fillStyle = paint.text;
        context.fillText(clip(context, row.label, left - 8), 2, base);
        context.fillStyle = paint.quiet;
        context.fillText(row.value ?? format(sum), left + room + 6, base);
      }
    });
    if (!shown.length) {
      context.fillStyle = paint.quiet;
      context.fillText('nothing yet', 8, 20);
    }
  });
  pointing(view.node, (x, y) => {
    const row = shown[Math.floor((y - 4) / height())];
    if (!row || y < 4) return null;
    const parts = row.parts.filter(([, , name]) => name).map(([value, , name]) => `${name}: ${format(value)}`);
    return { text: [row.label, ...parts, ...(row.text ? [row.text] : [])].join('\n'), link: row.link };
  });
  live((answer) => {
    const all = rows(answer);
    more = Math.max(0, all.length - rowsMax);
    shown = all.slice(0, rowsMax);
    const needed = shown.length * 6 + 10;
    view.node.style.height = needed > body.clientHeight ? `${needed}px` : '100%';
    if (more) note(`and ${formatCount(more)} more`);
    view.redraw();
  });
}

const perWorker = (make) => (answer) =>
  answer.rows.map((worker) => ({ label: workerLabel(worker), link: workerPage(worker.address), ...make(worker, answer) }));

const memoryParts = (worker) => [
  [worker.managed, paint.busy, 'results'],
  [worker.unmanaged_old, paint.quiet, 'anything else, for long'],
  [worker.unmanaged_recent, paint.warm, 'anything else, lately'],
  [worker.spilled, paint.wait, 'on disk'],
];

function legend(head, entries) {
  const made = element('span', { className: 'legend' });
  const fill = () => made.replaceChildren(...entries().map(([name, colour]) => {
    const box = element('i');
    box.style.background = colour;
    return element('span', {}, box, name);
  }));
  fill();
  redraws.add(fill);
  head.append(made);
}

panel('workers-memory', 'Memory by worker', '', (body, { note, head }) => {
  legend(head, () => [['results', paint.busy], ['other', paint.quiet], ['other, lately', paint.warm], ['on disk', paint.wait]]);
  bars(body, note, perWorker((worker) => ({
    parts: memoryParts(worker),
    max: worker.memory_limit ? Math.max(worker.memory_limit, worker.process + worker.spilled) : undefined,
    mark: worker.memory_limit,
    text: worker.memory_limit ? `limit: ${formatBytes(worker.memory_limit)}` : 'no limit',
  })), formatBytes);
});

panel('cluster-memory', 'Memory of all workers', 'wide', (body, { note, head }) => {
  legend(head, () => [['results', paint.busy], ['other', paint.quiet], ['other, lately', paint.warm], ['on disk', paint.wait]]);
  bars(body, note, (answer) => {
    const sum = (name) => answer.rows.reduce((total, worker) => total + worker[name], 0);
    const all = { managed: sum('managed'), unmanaged_old: sum('unmanaged_old'), unmanaged_recent: sum('unmanaged_recent'), spilled: sum('spilled') };
    return [{ label: 'all workers', parts: memoryParts(all), max: sum('memory_limit') || undefined }];
  }, formatBytes);
});

panel('cpu', 'CPU by worker', '', (body, { note }) => bars(body, note, perWorker((worker) => ({
  parts: [[worker.cpu, paint.busy, 'of one core']], max: Math.max(100 * worker.nthreads, worker.cpu),
})), (percent) => `${Math.round(percent)} %`));

panel('nprocessing', 'Tasks sent to each worker', '', (body, { note }) => bars(body, note, perWorker((worker) => ({
  parts: [[worker.processing, worker.saturated ? paint.bad : worker.idle ? paint.wait : paint.busy, 'tasks']],
  text: worker.saturated ? 'saturated' : worker.idle ? 'idle' : 'busy',
})), formatCount));

panel('occupancy', 'Occupancy: seconds of work sent to each worker', '', (body, { note }) => bars(body, note, perWorker((worker) => ({
  parts: [[worker.occupancy, worker.saturated ? paint.bad : paint.busy, 'work']],
})), formatSeconds));

panel('workers-transfer-bytes', 'Transfers under way', '', (body, { note }) => bars(body, note, perWorker((worker) => ({
  parts: [[worker.incoming, paint.bad, 'coming in'], [worker.outgoing, paint.warm, 'going out']],
})), formatBytes));

panel('bandwidth-workers', 'Bandwidth seen by each worker', '', (body, { note }) => bars(body, note, perWorker((worker) => ({
  parts: [[worker.bandwidth, paint.busy, 'in transfers']],
})), formatRate));

panel('workers-network', 'Network of the workers\u2019 hosts', '', (body, { note }) => bars(body, note, perWorker((worker) => ({
  parts: [[worker.net_read, paint.busy, 'in'], [worker.net_write, paint.warm, 'out']],
})), formatRate));

panel('workers-disk', 'Disks of the workers\u2019 hosts', '', (body, { note }) => bars(body, note, perWorker((worker) => ({
  parts: [[worker.disk_read, paint.busy, 'read'], [worker.disk_write, paint.warm, 'written']],
})), formatRate));

const byValue = (rows) => rows.filter((row) => row.parts.some(([value]) => value > 0))
  .sort((a, b) => b.parts.reduce((s, [v]) => s + v, 0) - a.parts.reduce((s, [v]) => s + v, 0));

panel('memory-by-key', 'Memory by key', '', (body, { note }) => bars(body, note, (answer) =>
  byValue(answer.prefixes.map(([name, tasks, nbytes]) => ({
    label: name, parts: [[nbytes, colourOf(name), 'in memory']], text: `${formatCount(tasks[5])} results`,
  }))), formatBytes));

panel('compute-time-per-key', 'Time by key', '', (body, { note, head }) => {
  legend(head, () => [['transfer', paint.bad], ['disk', paint.warm], ['other', paint.quiet]]);
  bars(body, note, (answer) => byValue(answer.prefixes.map(([name, , , mean, seconds]) => ({
    label: name,
    parts: Object.entries(seconds).map(([action, spent]) => [spent, actionColour(action, name), action]),
    text: mean === null ? '' : `about ${formatSeconds(mean)} for one task`,
  }))), formatSeconds);
});

function actionColour(action, name) {
  if (action === 'compute') return name ? colourOf(name) : paint.busy;
  return action === 'transfer' ? paint.bad : action.startsWith('disk') ? paint.warm : paint.quiet;
}

panel('aggregate-time-per-action', 'Time by action', '', (body, { note }) => bars(body, note, (answer) => {
  const total = {};
  for (const [, , , , seconds] of answer.prefixes) {
    for (const [action, spent] of Object.entries(seconds)) total[action] = (total[action] ?? 0) + spent;
  }
  return byValue(Object.entries(total).map(([action, spent]) => ({ label: action, parts: [[spent, actionColour(action), action]] })));
}, formatSeconds));

// ---- progress: how far the tasks of each prefix are

const prefixStates = ['released', 'waiting', 'no-worker', 'queued', 'processing', 'memory', 'erred'];

panel('progress', 'Progress', '', (body, { note, head }) => {
  legend(head, () => stateOrder.filter((state) => state !== 'no-worker').map((state) => [state, stateColour(state)]));
  const rows = new Map();
  live((answer) => {
    const open = ([, tasks]) => tasks[1] + tasks[2] + tasks[3] + tasks[4];
    const shown = answer.prefixes.filter(([, tasks]) => tasks.some((count) => count))
      .sort((a, b) => Math.sign(open(b)) - Math.sign(open(a)) || b[1].reduce((x, y) => x + y) - a[1].reduce((x, y) => x + y))
      .slice(0, 60);
    const keep = new Set(shown.map(([name]) => name));
    for (const [name, row] of rows) if (!keep.has(name)) { row.box.remove(); rows.delete(name); }
    if (!shown.length && !body.querySelector('.empty')) body.append(element('p', { className: 'empty', textContent: 'no tasks' }));
    if (shown.length) body.querySelector('.empty')?.remove();
    for (const [name, tasks] of shown) {
      let row = rows.get(name);
      if (!row) {
        row = { label: element('b', { textContent: name }), count: element('span'), track: element('div', { className: 'track' }), parts: {} };
        for (const state of stateOrder) row.track.append(row.parts[state] = element('i', { title: state }));
        row.box = element('div', { className: 'progress' }, element('div', { className: 'name' }, row.label, row.count), row.track);
        rows.set(name, row);
      }
      const total = tasks.reduce((sum, count) => sum + count, 0);
      const of = Object.fromEntries(prefixStates.map((state, at) => [state, tasks[at]]));
      for (const state of stateOrder) {
        row.parts[state].style.width = `${(100 * of[state]) / total}%`;
        row.parts[state].style.background = stateColour(state);
        row.parts[state].title = `${state}: ${formatCount(of[state])}`;
      }
      row.count.textContent = `${formatCount(of.memory + of.released + of.erred)} / ${formatCount(total)}${of.erred ? `, ${formatCount(of.erred)} erred` : ''}`;
      body.append(row.box);
    }
    note(answer.prefix_count > shown.length ? `${shown.length} of ${formatCount(answer.prefix_count)} kinds` : '');
  });
});

