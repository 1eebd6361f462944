// ---- graphs: tasks, or groups of tasks; what is read stands left of what reads it

// Columns by the longest way from a root; rows by the mean of what is read.
function layOut(count, edges, order) {
  const [reads, readBy] = [Array.from({ length: count }, () => []), Array.from({ length: count }, () => [])];
  for (const [from, to] of edges) { reads[to].push(from); readBy[from].push(to); }
  const depth = new Array(count).fill(0);
  const left = reads.map((all) => all.length);
  const ready = [];
  for (let node = 0; node < count; node++) if (!left[node]) ready.push(node);
  for (let at = 0; at < ready.length; at++) {
    for (const to of readBy[ready[at]]) {
      depth[to] = Math.max(depth[to], depth[ready[at]] + 1);
      if (!--left[to]) ready.push(to);
    }
  }
  // What nothing else pulls left stands beside its first reader.
  for (const node of [...ready].reverse()) {
    if (!reads[node].length && readBy[node].length) depth[node] = Math.min(...readBy[node].map((to) => depth[to])) - 1;
  }
  const columns = [];
  let rows = 1;
  for (let node = 0; node < count; node++) (columns[depth[node]] ??= []).push(node);
  const y = new Array(count).fill(0);
  const x = new Array(count).fill(0);
  columns.forEach((column, at) => {
    const wish = new Map(column.map((node) => [node, reads[node].length ? reads[node].reduce((sum, from) => sum + y[from], 0) / reads[node].length : null]));
    column.sort((a, b) => (wish.get(a) ?? 0.5) - (wish.get(b) ?? 0.5) || order(a) - order(b));
    // A long column is a band of short ones.
    const band = Math.min(12, Math.ceil(column.length / 60));
    column.forEach((node, row) => {
      x[node] = at + (band > 1 ? 0.5 * ((row % band) / (band - 1) - 0.5) : 0);
      y[node] = (row + 0.5) / column.length;
    });
    rows = Math.max(rows, Math.ceil(column.length / band));
  });
  return { x, y, columns: columns.length, rows };
}

function drawGraph(body, note, head, draw, find) {
  let [zoom, shiftX, shiftY] = [1, 0, 0];
  let graph = null;
  const place = (node, width, height) => [
    shiftX + zoom * (24 + ((graph.plan.x[node] + 0.5) / graph.plan.columns) * (width - 48)),
    shiftY + zoom * (16 + graph.plan.y[node] * (height - 32)),
  ];
  let size = [1, 1];
  const view = canvas(body, (context, width, height) => {
    size = [width, height];
    if (!graph) return;
    context.strokeStyle = paint.quiet;
    context.globalAlpha = graph.edges.length > 3000 ? 0.15 : 0.35;
    context.beginPath();
    for (const [from, to] of graph.edges) {
      const [a, b] = [place(from, width, height), place(to, width, height)];
      const middle = (a[0] + b[0]) / 2;
      context.moveTo(...a);
      context.bezierCurveTo(middle, a[1], middle, b[1], ...b);
    }
    context.stroke();
    context.globalAlpha = 1;
    draw(context, graph, (node) => place(node, width, height), zoom, width, height);
  });
  pointing(view.node, (x, y) => {
    if (!graph) return null;
    let [best, near] = [null, 14];
    for (let node = 0; node < graph.nodes.length; node++) {
      const [px, py] = place(node, ...size);
      const away = Math.hypot(px - x, py - y);
      if (away < near) [best, near] = [node, away];
    }
    return best === null ? null : find(graph, best);
  });
  view.node.addEventListener('wheel', (event) => {
    event.preventDefault();
    const next = Math.min(60, Math.max(1, zoom * (event.deltaY > 0 ? 1 / 1.25 : 1.25)));
    shiftX = event.offsetX - ((event.offsetX - shiftX) * next) / zoom;
    shiftY = event.offsetY - ((event.offsetY - shiftY) * next) / zoom;
    zoom = next;
    if (zoom === 1) [shiftX, shiftY] = [0, 0];
    view.redraw();
  }, { passive: false });
  view.node.addEventListener('pointermove', (event) => {
    if (event.buttons & 1) { shiftX += event.movementX; shiftY += event.movementY; view.redraw(); }
  });
  view.node.addEventListener('dblclick', () => { [zoom, shiftX, shiftY] = [1, 0, 0]; view.redraw(); });
  return (next) => { graph = next; view.redraw(); };
}

let graphShape = '';
panel('graph', 'Graph of tasks', 'full', (body, { note, head }) => {
  legend(head, () => stateOrder.map((state) => [state, stateColour(state)]));
  let plan = null;
  const show = drawGraph(body, note, head, (context, graph, place, zoom, width, height) => {
    const size = Math.max(2.5, Math.min(16, (0.7 * zoom * height) / graph.plan.rows, (0.5 * zoom * width) / graph.plan.columns));
    for (let node = 0; node < graph.nodes.length; node++) {
      const [x, y] = place(node);
      context.fillStyle = stateColour(graph.nodes[node][2]);
      context.fillRect(x - size / 2, y - size / 2, size, size);
      if (size > 9 && (0.9 * zoom * height) / graph.plan.rows > 13) {
        context.fillStyle = paint.text;
        context.fillText(clip(context, graph.nodes[node][1], (0.8 * zoom * width) / graph.plan.columns - size), x + size / 2 + 3, y + 4);
      }
    }
    if (graph.text) {
      context.fillStyle = paint.quiet;
      context.fillText(graph.text, 10, 20);
    }
  }, (graph, node) => {
    const [key, prefix, state] = graph.nodes[node];
    return { text: `${key}\n${state}`, link: taskPage(key) };
  });
  source('graph', () => 'json/graph.json', 1000).read((answer) => {
    const shape = JSON.stringify(answer.edges) + answer.nodes.map((node) => node[0]).join();
    if (shape !== graphShape || !plan) {
      graphShape = shape;
      plan = layOut(answer.nodes.length, answer.edges, (node) => answer.nodes[node][3]?.[1] ?? 0);
    }
    const text = answer.count > answer.most ? `${formatCount(answer.count)} tasks are too many to draw; the page Groups shows their groups` : answer.count ? '' : 'no tasks';
    note(answer.nodes.length ? `${formatCount(answer.count)} tasks; wheel to zoom, drag to move` : '');
    show({ ...answer, plan, text });
  });
});

panel('groups', 'Graph of groups', 'full', (body, { note, head }) => {
  legend(head, () => stateOrder.map((state) => [state, stateColour(state)]));
  const show = drawGraph(body, note, head, (context, graph, place, zoom, width, height) => {
    const tall = Math.max(6, Math.min(34, (0.6 * zoom * height) / graph.plan.rows));
    const wide = Math.max(20, Math.min(190, (0.62 * zoom * width) / graph.plan.columns));
    for (let node = 0; node < graph.nodes.length; node++) {
      const [, prefix, tasks] = graph.nodes[node];
      const [x, y] = place(node);
      const total = tasks.reduce((sum, count) => sum + count, 0) || 1;
      context.fillStyle = paint.card;
      context.fillRect(x - wide / 2, y - tall / 2, wide, tall);
      let from = x - wide / 2;
      for (const state of stateOrder) {
        const part = (wide * tasks[graph.states.indexOf(state)]) / total;
        context.fillStyle = stateColour(state);
        context.fillRect(from, y - tall / 2, part, tall);
        from += part;
      }
      context.strokeStyle = paint.quiet;
      context.strokeRect(x - wide / 2, y - tall / 2, wide, tall);
      if (tall > 12) {
        context.fillStyle = paint.text;
        context.fillText(clip(context, `${prefix} ${formatCount(total)}`, wide - 6), x - wide / 2 + 4, y + 4);
      }
    }
    if (!graph.nodes.length) {
      context.fillStyle = paint.quiet;
      context.fillText('no tasks', 10, 20);
    }
  }, (graph, node) => {
    const [name, , tasks] = graph.nodes[node];
    const states = graph.states.map((state, at) => [state, tasks[at]]).filter(([, count]) => count);
    return { text: [name, ...states.map(([state, count]) => `${state}: ${formatCount(count)}`)].join('\n') };
  });
  source('groups', () => 'json/groups.json', 1000).read((answer) => {
    note(answer.count > answer.nodes.length ? `${answer.nodes.length} of ${formatCount(answer.count)} groups` : `${formatCount(answer.count)} groups`);
    show({ ...answer, plan: layOut(answer.nodes.length, answer.edges, (node) => node) });
  });
});

