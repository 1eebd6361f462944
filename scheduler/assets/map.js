// ---- the cluster map: the scheduler, its workers, and what moves between them

panel('cluster-map', 'Cluster map', 'full', (body, { note }) => {
  let workers = [];
  let places = new Map();
  const fadeSeconds = 4;
  const view = canvas(body, (context, width, height) => {
    const [middleX, middleY] = [width / 2, height / 2];
    const radius = Math.max(60, Math.min(width, height) / 2 - 60);
    const size = Math.max(5, Math.min(30, (Math.PI * radius) / Math.max(1, workers.length) - 3));
    places = new Map();
    workers.forEach((worker, at) => {
      const angle = (2 * Math.PI * at) / workers.length - Math.PI / 2;
      places.set(worker.address, [middleX + radius * Math.cos(angle) * (width > height ? Math.min(1.7, width / height) : 1), middleY + radius * Math.sin(angle), worker]);
    });
    context.strokeStyle = paint.line;
    for (const [x, y, worker] of places.values()) {
      context.lineWidth = worker.processing ? Math.min(5, 1 + Math.log2(1 + worker.processing)) : 1;
      context.beginPath();
      context.moveTo(middleX, middleY);
      context.lineTo(x, y);
      context.stroke();
    }
    const now = serverNow();
    const { blocks, lanes, names } = streamData;
    for (let at = blocks.length - 1; at >= 0 && at > blocks.length - 4000; at--) {
      const block = blocks[at];
      const age = (now - block.stop) / fadeSeconds;
      if (age > 1) continue;
      const there = places.get(lanes[block.lane]?.[0]);
      if (!there) continue;
      context.globalAlpha = Math.max(0.05, 1 - Math.max(0, age));
      if (block.action === 'transfer' && places.has(names[block.source])) {
        const from = places.get(names[block.source]);
        context.strokeStyle = paint.bad;
        context.lineWidth = 2;
        context.beginPath();
        context.moveTo(from[0], from[1]);
        context.quadraticCurveTo(middleX, middleY, there[0], there[1]);
        context.stroke();
      } else if (block.action === 'compute') {
        context.fillStyle = blockColour(block);
        const way = Math.max(0, Math.min(1, age));
        context.beginPath();
        context.arc(there[0] + (middleX - there[0]) * way, there[1] + (middleY - there[1]) * way, 3, 0, 7);
        context.fill();
      }
    }
    context.globalAlpha = 1;
    for (const [x, y, worker] of places.values()) {
      context.beginPath();
      context.arc(x, y, size, 0, 7);
      context.fillStyle = paint.card;
      context.fill();
      context.lineWidth = 2;
      context.strokeStyle = worker.status === 'running' ? (worker.processing ? paint.busy : paint.wait) : paint.warm;
      context.stroke();
      const share = worker.memory_limit ? Math.min(1, worker.process / worker.memory_limit) : 0;
      context.beginPath();
      context.moveTo(x, y);
      context.arc(x, y, size - 2, -Math.PI / 2, -Math.PI / 2 + 2 * Math.PI * share);
      context.fillStyle = share > 0.8 ? paint.bad : paint.warm;
      context.globalAlpha = 0.7;
      context.fill();
      context.globalAlpha = 1;
      if (size > 12) {
        context.fillStyle = paint.text;
        context.textAlign = 'center';
        context.fillText(String(worker.processing), x, y + 4);
        context.fillText(clip(context, workerLabel(worker), 140), x, y + size + 13);
        context.textAlign = 'left';
      }
    }
    context.beginPath();
    context.arc(middleX, middleY, 32, 0, 7);
    context.fillStyle = paint.accent;
    context.fill();
    context.fillStyle = '#fff';
    context.textAlign = 'center';
    context.fillText('scheduler', middleX, middleY + 4);
    context.textAlign = 'left';
    context.lineWidth = 1;
  });
  pointing(view.node, (x, y) => {
    for (const [px, py, worker] of places.values()) {
      if (Math.hypot(px - x, py - y) < 24) {
        return { text: `${workerLabel(worker)}\n${worker.address}\n${worker.status}, ${worker.processing} tasks\n${formatBytes(worker.process)} of memory`, link: workerPage(worker.address) };
      }
    }
    return null;
  });
  live((answer) => {
    workers = answer.rows.slice(0, 300);
    note(answer.worker_count > workers.length ? `${workers.length} of ${formatCount(answer.worker_count)} workers` : 'red: transfers; dots: tasks that ended; discs: memory');
    view.redraw();
  });
  stream(view.redraw);
});

