// ---- the task stream: a lane per thread of a worker, a block per task, or per run of short ones

const streamData = { epoch: -1, next: 0, names: [], lanes: [], blocks: [], now: 0, received: 0, tasks: 0, skipped: 0, missed: 0 };
const blocksKept = 40000;

function takeStream(answer) {
  const data = streamData;
  if (answer.epoch !== data.epoch) Object.assign(data, { epoch: answer.epoch, names: [], lanes: [], blocks: [] });
  data.names.length = answer.names_from;
  data.names.push(...answer.names);
  data.lanes.length = answer.lanes_from;
  data.lanes.push(...answer.lanes);
  for (const [lane, name, action, ok, from, to, count, busy, key, from_worker] of answer.blocks) {
    data.blocks.push({
      lane, name, action, ok, start: answer.now - from / 1e3, stop: answer.now - to / 1e3, count, busy: busy / 1e3, key,
      source: from_worker,
    });
    if (action === 'compute') data.tasks += count;
  }
  if (data.blocks.length > blocksKept) data.blocks.splice(0, data.blocks.length - blocksKept);
  data.next = answer.next;
  data.skipped += answer.skipped;
  data.missed = answer.missed;
  data.now = answer.now;
  data.received = performance.now();
}

function stream(reader) {
  const data = streamData;
  const address = () => `json/stream.json?epoch=${data.epoch}&since=${data.next}&names=${data.names.length}&lanes=${data.lanes.length}`;
  const ours = source('stream', address, 400);
  if (!ours.readers.size) ours.readers.add(takeStream);
  ours.readers.add(reader);
  if (!ours.running) { ours.running = true; ours.turn(); }
}

const serverNow = () => streamData.now + (performance.now() - streamData.received) / 1e3;

function blockColour(block) {
  if (!block.ok) return paint.text;
  if (block.action === 'transfer') return paint.bad;
  if (block.action === 'disk') return paint.warm;
  if (block.action === 'other') return paint.quiet;
  return colourOf(streamData.names[block.name] ?? '');
}

panel('task-stream', 'Task stream', 'wide tall', (body, { note, head }) => {
  let span = 30;
  let drag = null;
  let end = null; // null follows what happens
  let names = new Map();
  let drawn = { lanes: [], from: 0, to: 1, top: 0, height: 1, left: 0, width: 1 };
  const left = 118;
  const view = canvas(body, (context, width, height) => {
    const data = streamData;
    let [oldest, newest] = [Infinity, 0];
    for (const block of data.blocks) {
      oldest = Math.min(oldest, block.start);
      newest = Math.max(newest, block.stop);
    }
    // What is over stays in sight: with nothing going on, the picture stands still. What is short fills it.
    const now = serverNow();
    const to = end ?? (newest ? Math.min(now, newest + 0.02 * span) : now);
    const shownSpan = end === null && newest ? Math.min(span, Math.max(1, 1.02 * (to - oldest))) : span;
    const from = to - shownSpan;
    const shown = data.blocks.filter((block) => block.stop >= from && block.start <= to);
    const used = [...new Set(shown.map((block) => block.lane))];
    const label = (lane) => data.lanes[lane]?.[0] ?? '';
    used.sort((a, b) => label(a).localeCompare(label(b)) || a - b);
    const row = new Map(used.map((lane, at) => [lane, at]));
    const top = 4, bottom = height - 18;
    const step = Math.min(70, (bottom - top) / Math.max(1, used.length));
    const scale = (width - left - 6) / shownSpan;
    drawn = { shown, row, from, to, top, step, left, scale };
    context.fillStyle = paint.quiet;
    context.strokeStyle = paint.line;
    context.textAlign = 'center';
    const tick = niceStep(shownSpan / 8);
    for (let moment = Math.ceil(from / tick) * tick; moment <= to; moment += tick) {
      const x = left + (moment - from) * scale;
      context.beginPath();
      context.moveTo(x, top);
      context.lineTo(x, bottom);
      context.stroke();
      const date = new Date(moment * 1e3);
      const clock = date.toLocaleTimeString('en-GB') + (tick < 1 ? '.' + String(date.getMilliseconds()).padStart(3, '0') : '');
      context.fillText(clock, x, height - 4);
    }
    context.textAlign = 'left';
    let before = '';
    for (const lane of used) {
      const worker = label(lane);
      if (worker !== before && step * used.filter((other) => label(other) === worker).length > 9) {
        context.fillStyle = paint.quiet;
        context.fillText(clip(context, names.get(worker) ?? worker.replace(/^\w+:\/\//, ''), left - 8), 2, top + row.get(lane) * step + Math.min(step - 2, 11));
      }
      before = worker;
    }
    const inner = Math.max(1, step - (step > 6 ? 2 : step > 3 ? 1 : 0));
    for (const block of shown) {
      const x = left + Math.max(0, block.start - from) * scale;
      const wide = Math.max(0.7, (Math.min(block.stop, to) - Math.max(block.start, from)) * scale);
      context.fillStyle = blockColour(block);
      // A run of short tasks is as dense as it was busy.
      context.globalAlpha = block.count > 1 ? Math.max(0.35, Math.min(1, block.busy / Math.max(1e-9, block.stop - block.start))) : 1;
      context.fillRect(x, top + row.get(block.lane) * step, wide, inner);
      if (inner > 11 && wide > 46 && block.action === 'compute') {
        context.globalAlpha = 1;
        context.fillStyle = '#fff';
        context.fillText(clip(context, streamData.names[block.name] ?? '', wide - 6), x + 3, top + row.get(block.lane) * step + inner / 2 + 4);
      }
    }
    context.globalAlpha = 1;
    if (!shown.length) {
      context.fillStyle = paint.quiet;
      context.fillText(data.blocks.length ? 'nothing ran in this time' : 'tasks appear here as they end', left + 8, 24);
    }
    note(`${formatCount(data.tasks)} tasks, ${formatCount(shown.length)} blocks, ${used.length} threads${data.skipped + data.missed ? `, ${formatCount(data.skipped + data.missed)} not shown` : ''}`);
  });
  pointing(view.node, (x, y) => {
    const { shown, row, from, top, step, scale } = drawn;
    if (!shown || x < left || drag) return null;
    const moment = from + (x - left) / scale;
    const reach = 1.5 / scale;
    const at = Math.floor((y - top) / step);
    let best = null;
    for (const block of shown) {
      if (row.get(block.lane) === at && block.start - reach <= moment && moment <= block.stop + reach) {
        if (!best || block.stop - block.start < best.stop - best.start) best = block;
      }
    }
    if (!best) return null;
    const { lanes, names } = streamData;
    const lines = [
      best.count > 1 ? `${best.count} × ${names[best.name]}, such as ${best.key}` : best.key,
      `${best.action}${best.ok ? '' : ', raised'}: ${formatSeconds(best.busy)}${best.count > 1 ? ` in ${formatSeconds(best.stop - best.start)}` : ''}`,
      `${lanes[best.lane]?.[0]} thread ${lanes[best.lane]?.[1]}`,
    ];
    if (best.source !== null && best.source !== undefined) lines.push(`from ${names[best.source]}`);
    return { text: lines.join('\n'), link: taskPage(best.key) };
  });
  const buttons = [];
  const press = () => buttons.forEach(([seconds, button]) => button.setAttribute('aria-pressed', String(seconds === span && end === null)));
  for (const [seconds, text] of [[5, '5 s'], [30, '30 s'], [120, '2 min'], [600, '10 min']]) {
    const button = element('button', { type: 'button', textContent: text, onclick: () => { span = seconds; end = null; press(); view.redraw(); } });
    buttons.push([seconds, button]);
    head.append(button);
  }
  press();
  view.node.addEventListener('wheel', (event) => {
    event.preventDefault();
    const { from, to, scale } = drawn;
    const moment = from + Math.max(0, event.offsetX - left) / scale;
    const next = Math.min(3600, Math.max(0.001, (to - from) * (event.deltaY > 0 ? 1.3 : 1 / 1.3)));
    end = moment + ((to - moment) * next) / (to - from);
    if (end >= serverNow()) end = null;
    span = next;
    press();
    view.redraw();
  }, { passive: false });
  view.node.addEventListener('pointerdown', (event) => { drag = { x: event.clientX, to: drawn.to }; });
  addEventListener('pointerup', () => { drag = null; });
  view.node.addEventListener('pointermove', (event) => {
    if (!drag || Math.abs(event.clientX - drag.x) < 4) return;
    end = drag.to - (event.clientX - drag.x) / drawn.scale;
    press();
    view.redraw();
  });
  view.node.addEventListener('dblclick', () => { end = null; press(); view.redraw(); });
  live((answer) => { names = new Map(answer.rows.map((worker) => [worker.address, workerLabel(worker)])); });
  stream(view.redraw);
});

function niceStep(step) {
  const power = 10 ** Math.floor(Math.log10(step));
  return [1, 2, 5, 10].map((factor) => factor * power).find((nice) => nice >= step);
}

