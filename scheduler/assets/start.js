// ---- the page

function start() {
  applyTheme(rememberedTheme());
  document.body.append(tip);
  document.getElementById('theme')?.addEventListener('click', toggleTheme);
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => applyTheme(document.documentElement.dataset.theme));
  const main = document.querySelector('main');
  const wanted = document.body.dataset.panels.split(/\s+/).filter(Boolean);
  if (wanted[0] === 'refresh') {
    setTimeout(() => refresh(location.href, main), 2000);
    return;
  }
  if (!wanted.length) return;
  const alone = !document.querySelector('header');
  main.classList.add(alone ? 'alone' : 'panels');
  for (const name of wanted) {
    const found = panels.get(name);
    if (!found) continue;
    const said = element('small');
    const head = element('h2', {}, found.title, said);
    const body = element('div', { className: 'body' });
    const box = element('section', { className: `panel ${found.shape}`, id: name }, ...(found.title ? [head] : []), body);
    main.append(box);
    found.make(body, { head, note: (text) => { if (said.textContent !== text) said.textContent = text; } });
  }
}

start();
