// ---- where tasks spend their time: every function under the one that called it

panel('profile', 'Profile of the tasks', 'full', (body, { note, head }) => {
  let tree = null;
  let top = null;
  let boxes = [];
  const step = 18;
  const view = canvas(body, (context, width) => {
    boxes = [];
    if (!tree || !tree[2]) {
      context.fillStyle = paint.quiet;
      context.fillText('no samples yet: workers sample tasks that run for a while', 10, 20);
      return;
    }
    const draw = (node, x, wide, depth) => {
      if (wide < 1.5) return;
      const [name, place, count, callees] = node;
      context.fillStyle = depth ? colourOf(name) : paint.wait;
      context.fillRect(x, 4 + depth * step, wide - 1, step - 1);
      if (wide > 30) {
        context.fillStyle = '#fff';
        context.fillText(clip(context, depth || name ? name : 'all tasks', wide - 8), x + 4, 4 + depth * step + 13);
      }
      boxes.push([x, 4 + depth * step, wide, node]);
      let from = x;
      for (const callee of callees) {
        const part = (wide * callee[2]) / Math.max(1, count);
        draw(callee, from, part, depth + 1);
        from += part;
      }
    };
    draw(top ?? tree, 4, width - 8, 0);
  });
  pointing(view.node, (x, y) => {
    const box = boxes.find(([left, above, wide]) => x >= left && x < left + wide && y >= above && y < above + step);
    if (!box) return null;
    const [name, place, count] = box[3];
    return {
      text: `${name || 'all tasks'}\n${place}\n${formatCount(count)} samples, ${((100 * count) / Math.max(1, tree[2])).toFixed(1)} %`,
      act: () => { top = box[3] === tree || box[3] === top ? null : box[3]; view.redraw(); },
    };
  });
  source('profile', () => 'json/profile.json', 3000).read((answer) => {
    tree = answer.root;
    top = null;
    note(`${formatCount(tree[2])} samples of the last ${formatSeconds(answer.seconds)}; click to look closer`);
    view.redraw();
  });
});

