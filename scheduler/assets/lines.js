// ---- lines over time: what the page has seen since it was opened

const historySeconds = 600;

class History {
  constructor() { this.moments = []; this.series = new Map(); }
  add(now, values) {
    this.moments.push(now);
    for (const [name, value] of Object.entries(values)) {
      if (!this.series.has(name)) this.series.set(name, new Array(this.moments.length - 1).fill(null));
      this.series.get(name).push(value);
    }
    for (const all of this.series.values()) if (all.length < this.moments.length) all.push(null);
    const old = this.moments.findIndex((moment) => moment >= now - historySeconds);
    // Dropped in bunches, so that it costs little.
    if (old > 200) {
      this.moments.splice(0, old);
      for (const [name, all] of this.series) {
        all.splice(0, old);
        if (all.every((value) => value === null)) this.series.delete(name);
      }
    }
  }
}

// `charts` are `{ title, format, take(answer) -> { name: value }, colour(name), most }`, one under the other.
function lines(body, note, charts) {
  const histories = charts.map(() => new History());
  let latest = 0;
  const view = canvas(body, (context, width, height) => {
    const each = height / charts.length;
    charts.forEach((chart, at) => {
      const history = histories[at];
      const [top, bottom, left, right] = [at * each + 18, (at + 1) * each - 6, 62, width - 8];
      const first = Math.max(latest - historySeconds, history.moments[0] ?? latest);
      const span = Math.max(20, latest - first);
      let most = chart.most ?? 0;
      for (const values of history.series.values()) for (const value of values) if (value > most) most = value;
      most = most || 1;
      const [x, y] = [(moment) => right - ((latest - moment) / span) * (right - left), (value) => bottom - (value / most) * (bottom - top)];
      context.strokeStyle = paint.line;
      context.fillStyle = paint.quiet;
      context.textAlign = 'right';
      for (const part of [0, 0.5, 1]) {
        context.beginPath();
        context.moveTo(left, y(part * most));
        context.lineTo(right, y(part * most));
        context.stroke();
        if (part) context.fillText(chart.format(part * most), left - 5, y(part * most) + 4);
      }
      context.textAlign = 'left';
      context.fillText(chart.title, left, top - 6);
      let place = left + context.measureText(chart.title).width + 14;
      const many = history.series.size > 8;
      for (const [name, values] of history.series) {
        const bold = !many || name === 'mean' || name === 'all';
        context.strokeStyle = chart.colour(name);
        context.globalAlpha = bold ? 1 : 0.3;
        context.lineWidth = bold ? 1.8 : 1;
        context.beginPath();
        let down = false;
        values.forEach((value, index) => {
          if (value === null || history.moments[index] < first) { down = false; return; }
          const [px, py] = [x(history.moments[index]), y(value)];
          if (down) context.lineTo(px, py);
          else context.moveTo(px, py);
          down = true;
        });
        context.stroke();
        context.globalAlpha = 1;
        if (bold && values.length) {
          const text = `${name === 'all' ? '' : `${name} `}${chart.format(values[values.length - 1] ?? 0)}`;
          if (place + context.measureText(text).width < right) {
            context.fillStyle = chart.colour(name);
            context.fillText(text, place, top - 6);
            place += context.measureText(text).width + 14;
          }
        }
      }
      context.lineWidth = 1;
    });
  });
  let previous = null;
  live((answer) => {
    if (answer === previous) return;
    charts.forEach((chart, at) => {
      const values = chart.take(answer, previous);
      if (values) histories[at].add(answer.now, values);
    });
    previous = answer;
    latest = answer.now;
    view.redraw();
  });
}

const linesWorkersMax = 60;
const eachWorker = (value) => (answer) => {
  const rows = answer.rows.slice(0, linesWorkersMax);
  const mean = answer.rows.reduce((sum, worker) => sum + value(worker), 0) / Math.max(1, answer.rows.length);
  return { ...Object.fromEntries(rows.map((worker) => [workerLabel(worker), value(worker)])), mean };
};
const workerColour = (name) => (name === 'mean' || name === 'all' ? paint.text : colourOf(name));

panel('workers-cpu-timeseries', 'CPU of the workers', '', (body, { note }) =>
  lines(body, note, [{ title: '', format: (percent) => `${Math.round(percent)} %`, take: eachWorker((worker) => worker.cpu), colour: workerColour, most: 100 }]));
panel('workers-memory-timeseries', 'Memory of the workers', '', (body, { note }) =>
  lines(body, note, [{ title: '', format: formatBytes, take: eachWorker((worker) => worker.process), colour: workerColour }]));

const sums = (...pairs) => (answer) =>
  Object.fromEntries(pairs.map(([name, column]) => [name, answer.rows.reduce((sum, worker) => sum + worker[column], 0)]));
const pairColour = (name) => (name === 'in' || name === 'read' ? paint.busy : paint.warm);

panel('workers-network-timeseries', 'Network of the workers\u2019 hosts', '', (body, { note }) =>
  lines(body, note, [{ title: '', format: formatRate, take: sums(['in', 'net_read'], ['out', 'net_write']), colour: pairColour }]));
panel('workers-disk-timeseries', 'Disks of the workers\u2019 hosts', '', (body, { note }) =>
  lines(body, note, [{ title: '', format: formatRate, take: sums(['read', 'disk_read'], ['written', 'disk_write']), colour: pairColour }]));

panel('scheduler-system', 'The scheduler\u2019s process', '', (body, { note }) => lines(body, note, [
  {
    title: 'CPU', format: (percent) => `${Math.round(percent)} %`, most: 100, colour: () => paint.busy,
    take: (answer, before) => before && { all: (100 * (answer.scheduler.cpu_seconds - before.scheduler.cpu_seconds)) / (answer.now - before.now) },
  },
  { title: 'memory', format: formatBytes, colour: () => paint.good, take: (answer) => ({ all: answer.scheduler.memory }) },
  { title: 'open files', format: formatCount, colour: () => paint.warm, take: (answer) => ({ all: answer.scheduler.fds }) },
]));

panel('contention', 'The scheduler\u2019s driver', '', (body, { note }) => lines(body, note, [
  {
    title: 'busy', format: (percent) => `${percent.toFixed(percent < 10 ? 1 : 0)} %`, most: 10, colour: () => paint.busy,
    take: (answer, before) => before && { all: (100 * (answer.scheduler.busy - before.scheduler.busy)) / (answer.now - before.now) },
  },
  {
    title: 'transitions each second', format: formatCount, most: 10, colour: () => paint.good,
    take: (answer, before) => before && { all: (answer.transitions - before.transitions) / (answer.now - before.now) },
  },
  { title: 'answers this page in', format: formatSeconds, colour: () => paint.warm, take: (answer) => ({ all: answer.scheduler.answered_in }) },
]));

panel('group-progress', 'Tasks by state', 'wide', (body, { note }) => lines(body, note, [{
  title: '', format: formatCount, take: (answer) => ({ ...answer.tasks }), colour: stateColour,
}]));

