// The review page of fastai_resup: plain script, no network. Data come from data.js; whatever they hold is only ever set as text.
'use strict';
(() => {
const D = window.RESUP_AUDIT, $ = id => document.getElementById(id);
if (!D) { $('notice').hidden = false; $('notice-text').textContent = 'data.js is missing or broken: copy the whole folder.'; return; }
const N = D.files.length, K = D.classes.length, COLUMNS = ['file', 'label', 'decision', 'new_label'];
const UNDECIDED = 0, KEEP = 1, DROP = 2, FIRST = 3;                    // FIRST+c: relabel to class c
const codes = new Uint16Array(N), broken = new Set(D.broken), names = D.files.map(f => f.toLowerCase());
const number = n => n.toLocaleString('en'), full = r => D.root + D.files[r], classKey = c => c < 9 ? String(c + 1) : c === 9 ? '0' : '';
let steps = [], view = [], cursor = 0, nDecided = 0, unsaved = false, stored = true;

const kind = c => c === UNDECIDED ? '' : c === KEEP ? 'keep' : c === DROP ? 'drop' : 'relabel';
const badge = c => c === UNDECIDED ? '' : c === KEEP ? '✓ keep' : c === DROP ? '✕ drop' : '→ ' + D.classes[c - FIRST];
const shortName = f => f.length > 60 ? f.slice(0, 25) + '…' + f.slice(-30) : f;
const percent = p => p === null ? '–' : Math.round(100 * p) + '%', decimals = p => p === null ? '–' : p.toFixed(2);

// ---- messages
function notice(text, good) {
  $('notice').hidden = !text;
  $('notice').className = good ? 'good' : '';
  $('notice-text').textContent = text;
  measure();
}
const say = text => { $('said').textContent = text; };

// ---- decisions: every change is a step that can be undone
function decide(rows, code) {
  const changed = [], old = [];
  for (const r of rows) {
    let c = typeof code === 'function' ? code(r) : code;
    if (c - FIRST === D.label[r]) c = KEEP;
    if (c === codes[r]) continue;
    changed.push(r); old.push(codes[r]);
    nDecided += (c !== UNDECIDED) - (codes[r] !== UNDECIDED);
    codes[r] = c;
  }
  if (changed.length) { steps.push({rows: changed, old}); steps = steps.slice(-1000); keep(); }
  return changed.length;
}
function undo() {
  const step = steps.pop();
  if (!step) return say('Nothing to undo.');
  step.rows.forEach((r, i) => { nDecided += (step.old[i] !== UNDECIDED) - (codes[r] !== UNDECIDED); codes[r] = step.old[i]; });
  keep();
  const at = view.indexOf(step.rows[0]);
  if (at >= 0) moveTo(at); else update();
  say(step.rows.length > 1 ? `Undone: ${number(step.rows.length)} images.` : `Undone: ${shortName(D.files[step.rows[0]])}${at < 0 ? ', which the filter hides' : ''}.`);
}
function decideCurrent(code) {
  if (cursor >= view.length) return;
  const r = view[cursor];
  decide([r], code);
  const text = codes[r] === KEEP ? 'Kept' : codes[r] === DROP ? 'Dropped' : codes[r] === UNDECIDED ? 'Undecided again' : `Relabelled to ${D.classes[codes[r] - FIRST]}`;
  const more = code === UNDECIDED || nextUndecided();
  if (code === UNDECIDED) update();
  say(`${text}: ${shortName(D.files[r])}.${more ? '' : ' No undecided image below.'}`);
}
function relabelCurrent() {
  const r = view[cursor];
  if (r === undefined) return;
  if (D.suggested[r] === D.label[r]) return say('The suggestion is the given label: K keeps it.');
  decideCurrent(FIRST + D.suggested[r]);
}
function bulk(code, fits, text) {
  const n = decide(view.filter(r => codes[r] === UNDECIDED && fits(r)), code);
  update();
  say(n ? `${text}: ${number(n)} images. U undoes it.` : 'No undecided image here that this applies to.');
}

// ---- kept in this browser, by the id of the audit
const KEY = 'fastai_resup-review-' + D.id;
function keep() {
  unsaved = true;
  let left = 5000;
  const some = [];
  for (let i = steps.length - 1; i >= 0 && (left -= steps[i].rows.length) >= 0; i--) some.unshift(steps[i]);
  const packed = [];
  for (let i = 0; i < N; i += 8192) packed.push(String.fromCharCode(...codes.subarray(i, i + 8192).map(c => c + 48)));
  try { localStorage.setItem(KEY, JSON.stringify({codes: packed.join(''), steps: some})); stored = true; }
  catch (e) {
    if (stored) notice(`Decisions can't be kept in this browser (${e.name}): download them before you close this page.`);
    stored = false;
  }
}
function recall(text) {
  if (!text) return false;
  try {
    const saved = JSON.parse(text), fits = c => c < FIRST + K, row = r => Number.isInteger(r) && r >= 0 && r < N;
    const found = Array.from({length: N}, (_, i) => saved.codes.charCodeAt(i) - 48);
    if (saved.codes.length !== N || !found.every(fits)) throw new Error('other data');
    codes.set(found);
    steps = saved.steps.filter(s => s.rows.every(row) && s.old.length === s.rows.length && s.old.every(fits));
    nDecided = codes.reduce((n, c) => n + (c !== UNDECIDED), 0);
    return true;
  } catch (e) { notice('What this browser kept for this audit is damaged, so it is left out. Load your last csv.'); return false; }
}
function recallAtStart() {
  try { if (recall(localStorage.getItem(KEY))) say(`${number(nDecided)} decisions are back from your last visit.`); }
  catch (e) { stored = false; notice(`This browser keeps nothing (${e.name}): download your decisions before you close this page.`); }
}
addEventListener('storage', e => { if (e.key === KEY && recall(e.newValue)) update(); });
addEventListener('beforeunload', e => { if (!stored && unsaved && nDecided) e.preventDefault(); });

// ---- csv: text that a spreadsheet would run is guarded as guard_formula in files.py does it
const FORMULA = /^'*[=+\-@\t\r\n]/;
const field = s => { if (FORMULA.test(s)) s = "'" + s; return /[",\r\n]/.test(s) ? '"' + s.replaceAll('"', '""') + '"' : s; };
const restore = s => s[0] === "'" && FORMULA.test(s.slice(1)) ? s.slice(1) : s;
function csvText() {
  const lines = [COLUMNS.join(',')];
  for (let r = 0; r < N; r++) if (codes[r] !== UNDECIDED) {
    const new_label = codes[r] >= FIRST ? D.classes[codes[r] - FIRST] : '';
    lines.push([full(r), D.classes[D.label[r]], kind(codes[r]), new_label].map(field).join(','));
  }
  return lines.join('\n') + '\n';
}
// Bytes of file names that aren't UTF-8 arrive as lone low surrogates, as Python has them, and leave as the bytes they were
const bytes = text => text.split(/(?<![\uD800-\uDBFF])([\uDC80-\uDCFF])/).map((s, i) => i % 2 ? new Uint8Array([s.charCodeAt(0) & 255]) : s);
function decode(buffer) {
  const all = new Uint8Array(buffer), mark = all[0] << 8 | all[1], wide = mark === 0xFFFE ? 'utf-16le' : mark === 0xFEFF ? 'utf-16be' : '';
  if (wide) return new TextDecoder(wide).decode(all);                   // what some spreadsheets call Unicode text
  const strict = new TextDecoder('utf-8', {fatal: true});
  try { return strict.decode(all); } catch (e) { /* not all UTF-8 */ }
  let text = '';
  for (let i = 0; i < all.length;) {
    const n = all[i] < 0x80 ? 1 : all[i] >= 0xF0 ? 4 : all[i] >= 0xE0 ? 3 : 2;
    try { text += strict.decode(all.subarray(i, i + n)); i += n; } catch (e) { text += String.fromCharCode(0xDC00 + all[i++]); }
  }
  return text;
}
function download() {
  if (!nDecided) return say('Nothing is decided yet.');
  const a = document.createElement('a');
  a.href = URL.createObjectURL(new Blob(bytes(csvText()), {type: 'text/csv;charset=utf-8'}));
  a.download = 'decisions.csv';
  a.click();
  setTimeout(() => URL.revokeObjectURL(a.href), 10000);
  unsaved = false;
  say(`${number(nDecided)} decisions downloaded as decisions.csv.`);
}
// Between the fields a spreadsheet puts whatever its language wants: the one by which the header has our columns
const separator = head => [',', ';', '\t', '|'].find(s => COLUMNS.every(c => head.split(s).map(o => o.trim().replace(/^"(.*)"$/, '$1').trim()).includes(c))) || ',';
function parseCsv(text, comma) {
  const rows = [];
  let row = [], cell = '', line = 1, start = 1, quoted = false, i = 0;
  const end = () => { row.push(cell); if (row.length > 1 || row[0] !== '') rows.push({line: start, row}); row = []; cell = ''; };
  while (i < text.length) {
    const c = text[i++];
    if (c === '\n' || c === '\r' && text[i] !== '\n') line++;
    if (quoted) {
      if (c !== '"') cell += c;
      else if (text[i] === '"') { cell += '"'; i++; }
      else if (i < text.length && !(comma + '\r\n').includes(text[i])) throw new Error(`line ${start}: text after a closing quote`);
      else quoted = false;
    } else if (c === '"' && cell === '') quoted = true;
    else if (c === comma) { row.push(cell); cell = ''; }
    else if (c === '\n' || c === '\r') { if (c === '\r' && text[i] === '\n') { i++; line++; } end(); start = line; }
    else cell += c;
  }
  if (quoted) throw new Error(`line ${start}: a quote is never closed`);
  if (cell !== '' || row.length) end();
  return rows;
}
// The image of a name: as it is here, without white space around it, or by the end of the path, as decisions may come from another folder
function rowFinder() {
  const parts = f => { const p = f.split(D.sep).filter((o, i) => o !== '.' && (o || !i)); while (p[0] === '..') p.shift(); return p; };
  const all = D.files.map((_, r) => parts(full(r))), exact = new Map(all.map((_, r) => [full(r), r])), ends = new Map();
  const endsOf = depth => {                                             // the last so many parts of every path that has them; -1 where several have the same
    if (!ends.has(depth)) {
      const m = new Map();
      all.forEach((p, r) => { if (p.length >= depth) { const end = p.slice(-depth).join(D.sep); m.set(end, m.has(end) ? -1 : r); } });
      ends.set(depth, m);
    }
    return ends.get(depth);
  };
  return name => {
    const found = exact.get(name) ?? exact.get(name.trim());
    if (found !== undefined) return found;
    const p = parts(name.trim()), hits = new Set();
    if (!p.length) return undefined;
    for (let depth = 1; depth <= p.length; depth++) {
      const r = endsOf(depth).get(p.slice(-depth).join(D.sep));
      if (r >= 0 && all[r].length === depth || r !== undefined && depth === p.length) hits.add(r);
    }
    return hits.size > 1 ? -1 : [...hits][0];
  };
}
function readDecisions(text) {
  text = text.replace(/^\uFEFF/, '');
  const [head, ...rows] = parseCsv(text, separator(text.split(/\r|\n/, 1)[0]));
  const columns = head ? head.row.map(s => s.trim()) : [];
  while (columns.length && !columns.at(-1)) columns.pop();              // empty ones at the end, which spreadsheets leave
  const at = COLUMNS.map(c => columns.indexOf(c)), twice = columns.find((c, i) => columns.indexOf(c) !== i);
  if (at.includes(-1)) throw new Error(`line 1: the columns ${COLUMNS.join(', ')} are needed`);
  if (twice !== undefined) throw new Error(`line 1: the column ${JSON.stringify(twice)} is there twice`);
  const rowOf = rowFinder(), classOf = new Map(D.classes.map((c, i) => [c, i])), found = new Map(), bad = [];
  let repeated = 0;
  for (const {line, row} of rows) {
    if (row.length < columns.length || row.slice(columns.length).some(o => o)) { bad.push(`line ${line}: ${row.length} fields in place of ${columns.length}`); continue; }
    let [file, label, decision, to] = at.map(i => restore(row[i]));
    decision = decision.trim().toLowerCase();
    to = classOf.has(to) ? to : to.trim();
    if (!decision && !to) continue;
    const r = rowOf(file), name = JSON.stringify(shortName(file)), given = D.classes[D.label[r]];
    if (label !== given) label = label.trim();
    const code = decision === 'keep' ? KEEP : decision === 'drop' ? DROP : FIRST + classOf.get(to);
    const why = !decision ? 'a new label without a decision: write relabel' : !['keep', 'relabel', 'drop'].includes(decision) ? `${JSON.stringify(decision)} is no decision: write keep, relabel or drop`
      : decision === 'relabel' && !to ? 'relabel needs a new_label' : decision !== 'relabel' && to ? `${decision} takes no new_label` : r === undefined ? `${name} is not in this audit`
      : r < 0 ? `${name} may be several images: name more of the path`
      : given !== label ? `${name} has the label ${given}, not ${label}: the decision belongs to other data`
      : to && !classOf.has(to) ? `unknown class ${JSON.stringify(to)}` : found.has(r) && found.get(r) !== code ? `${name} was decided above already` : '';
    if (why) bad.push(`line ${line}: ${why}`); else { repeated += found.has(r); found.set(r, code); }
  }
  if (bad.length) throw new Error(bad.slice(0, 10).join('\n') + (bad.length > 10 ? `\nand ${bad.length - 10} more` : ''));
  return {found, repeated};
}
async function load(file) {
  try {
    const {found, repeated} = readDecisions(decode(await file.arrayBuffer()));
    let replaced = 0;
    for (const [r, c] of found) replaced += codes[r] !== UNDECIDED && codes[r] !== (c - FIRST === D.label[r] ? KEEP : c);
    decide(found.keys(), r => found.get(r));
    if (stored) notice(`${number(found.size)} decisions loaded from ${file.name}${replaced ? `; ${number(replaced)} replaced others` : ''}${repeated ? `; ${number(repeated)} repeated rows count once` : ''}. Undo takes them out again.`, true);
    update();
  } catch (e) { notice(`${file.name} was not loaded:\n${e.message}`); }
}

// ---- filter
function options(select, names, ids) {
  const counts = new Array(names.length).fill(0);
  for (const i of ids) counts[i]++;
  select.append(new Option('all', ''));
  names.forEach((c, i) => { if (counts[i]) select.append(new Option(`${c} (${number(counts[i])})`, i)); });
}
function filter() {
  const given = $('given').value, suggested = $('suggested').value, group = $('group').value, state = $('state').value, limit = +$('limit').value, text = $('search').value.toLowerCase(), row = view[cursor];
  $('limit-value').textContent = limit.toFixed(2);
  const fits = r => (given === '' || D.label[r] === +given) && (suggested === '' || D.suggested[r] === +suggested) && (group === '' || D.group.ids[r] === +group) && (limit === 1 || D.p_clean[r] <= limit)
    && (state === 'all' || (state === 'decided' ? codes[r] !== UNDECIDED : kind(codes[r]) === (state === 'undecided' ? '' : state))) && (!text || names[r].includes(text));
  view = [];
  for (let r = 0; r < N; r++) if (fits(r)) view.push(r);
  cursor = Math.max(0, view.indexOf(row));
  $('empty').hidden = view.length > 0;
  $('filter-button').textContent = view.length === N ? 'Filter' : 'Filter ●';
  for (const [i, el] of cards) { spare.push(el); el.remove(); cards.delete(i); }
  measure();
  show(cursor);
}

// ---- the grid holds only the cards in sight
const scroll = $('scroll'), grid = $('grid'), cards = new Map(), spare = [];
let cols = 1, cardW = 0, cardH = 0, gap = 10, frame = 0;
function measure() {
  const style = getComputedStyle(document.documentElement), box = getComputedStyle(scroll), narrow = innerWidth <= 720;
  const width = scroll.clientWidth - parseFloat(box.paddingLeft) - parseFloat(box.paddingRight), was = cols, top = Math.floor(scroll.scrollTop / (cardH + gap || 1)) * was;
  gap = parseFloat(style.getPropertyValue('--gap'));
  cols = narrow ? Math.max(3, Math.floor(width / 150)) : Math.max(2, Math.floor((width + gap) / (138 + gap)));
  cardW = (width - gap * (cols - 1)) / cols;
  cardH = Math.round(cardW + parseFloat(style.getPropertyValue('--text')));
  grid.style.height = Math.max(0, Math.ceil(view.length / cols) * (cardH + gap) - gap) + 'px';
  if (cols !== was) scroll.scrollTop = Math.floor(top / cols) * (cardH + gap);
  update();
}
function makeCard() {
  const el = document.createElement('div'), part = (cls, parent = el, tag = 'div') => { const o = document.createElement(tag); o.className = cls; parent.append(o); return o; };
  el.className = 'card';
  el.setAttribute('role', 'option');
  const thumb = part('thumb'), broken = part('broken', thumb), badge = part('badge'), lines = part('lines');
  broken.textContent = 'unreadable';
  const from = part('line from', lines), given = part('name', from, 'span'), tag = part('num', from, 'span');
  const to = part('line to', lines), sign = part('tag', to, 'span'), suggested = part('name', to, 'span'), prob = part('num', to, 'span');
  const low = part('line low', lines), meter = part('', part('meter', low), 'i'), clean = part('num', low, 'span');
  tag.textContent = 'given';
  clean.title = low.title = 'p(clean)';
  el.parts = {thumb, broken, badge, given, clean, to, sign, suggested, prob, meter};
  el.addEventListener('click', () => { moveTo(el.at); scroll.focus({preventScroll: true}); });
  return el;
}
function setThumb(el, r) {
  const n = D.sheet, i = r % (n * n), step = 100 / (n - 1);
  el.style.backgroundImage = `url("thumbs/${String(Math.floor(r / (n * n))).padStart(5, '0')}.jpg")`;
  el.style.backgroundSize = `${100 * n}% ${100 * n}%`;
  el.style.backgroundPosition = `${i % n * step}% ${Math.floor(i / n) * step}%`;
}
function fill(el, i) {
  const r = view[i], p = el.parts, same = D.suggested[r] === D.label[r], given = D.classes[D.label[r]], suggested = D.classes[D.suggested[r]];
  el.at = i;
  el.id = 'card-' + r;
  el.style.width = cardW + 'px';
  el.style.height = cardH + 'px';
  el.style.transform = `translate(${i % cols * (cardW + gap)}px, ${Math.floor(i / cols) * (cardH + gap)}px)`;
  setThumb(p.thumb, r);
  p.broken.hidden = !broken.has(r);
  p.given.textContent = given;
  p.suggested.textContent = same ? 'same' : suggested;
  p.sign.textContent = same ? '=' : '→';
  p.to.className = same ? 'line to same' : 'line to';
  p.prob.textContent = percent(D.prob[r]);
  p.clean.textContent = decimals(D.p_clean[r]);
  p.meter.style.transform = `scaleX(${D.p_clean[r] ?? 0})`;
  el.title = D.files[r].slice(0, 300);
  el.setAttribute('aria-posinset', i + 1);
  el.setAttribute('aria-setsize', view.length);
  state(el, r);
}
function state(el, r) {
  el.dataset.decision = kind(codes[r]);
  el.parts.badge.textContent = badge(codes[r]);
  el.setAttribute('aria-selected', el.at === cursor);
  el.setAttribute('aria-label', `${shortName(D.files[r])}, given ${D.classes[D.label[r]]}, suggested ${D.classes[D.suggested[r]]}, p(clean) ${decimals(D.p_clean[r])}, ${badge(codes[r]) || 'undecided'}`);
}
function render() {
  frame = 0;
  const row = cardH + gap, top = scroll.scrollTop, first = Math.max(0, Math.floor(top / row) - 2) * cols, last = Math.min(view.length, (Math.ceil((top + scroll.clientHeight) / row) + 2) * cols);
  for (const [i, el] of cards) if (i < first || i >= last) { spare.push(el); cards.delete(i); }
  for (let i = first; i < last; i++) {
    let el = cards.get(i);
    if (!el) { el = spare.pop() || makeCard(); cards.set(i, el); }
    if (!el.isConnected) grid.append(el);
    if (el.fresh !== `${i} ${view[i]} ${cardW}`) { fill(el, i); el.fresh = `${i} ${view[i]} ${cardW}`; } else state(el, view[i]);
  }
  for (const el of spare) if (el.isConnected) { el.remove(); el.fresh = ''; }
}
const update = () => { if (!frame) frame = requestAnimationFrame(() => { render(); describe(); }); };
scroll.addEventListener('scroll', () => { if (!frame) frame = requestAnimationFrame(render); }, {passive: true});
function show(i) {
  const row = cardH + gap, pad = parseFloat(getComputedStyle(scroll).paddingTop), y = Math.floor(i / cols) * row, below = y + cardH + 2 * pad - scroll.clientHeight;
  if (y < scroll.scrollTop) scroll.scrollTop = y; else if (below > scroll.scrollTop) scroll.scrollTop = below;
  update();
}
function moveTo(i) {
  if (!view.length) return;
  cursor = Math.min(view.length - 1, Math.max(0, i));
  show(cursor);
}
function nextUndecided() {
  const at = view.findIndex((r, i) => i > cursor && codes[r] === UNDECIDED);
  if (at >= 0) moveTo(at); else update();
  return at >= 0;
}

// ---- the selected image, and all counts
function describe() {
  const r = view[cursor], here = r !== undefined, left = view.reduce((n, i) => n + (codes[i] === UNDECIDED), 0);
  $('bar').max = view.length || 1;
  $('bar').value = view.length - left;
  $('count').textContent = view.length === N ? `${number(nDecided)} of ${number(N)} decided` : `${number(view.length - left)} of ${number(view.length)} shown, ${number(nDecided)} in all decided`;
  $('shown').textContent = `${number(view.length)} shown`;
  $('bulk-title').textContent = `All ${number(left)} undecided images shown`;
  for (const id of ['bulk-relabel', 'bulk-keep', 'bulk-drop']) $(id).disabled = !left;
  $('undo').disabled = !steps.length;
  for (const id of ['keep', 'relabel', 'drop', 'class']) $(id).disabled = !here;
  $('panel').style.visibility = here ? '' : 'hidden';
  if (!here) { scroll.removeAttribute('aria-activedescendant'); return; }
  const same = D.suggested[r] === D.label[r], given = D.classes[D.label[r]], suggested = D.classes[D.suggested[r]];
  scroll.setAttribute('aria-activedescendant', 'card-' + r);
  setThumb($('preview'), r);
  $('preview').setAttribute('aria-label', broken.has(r) ? 'The image could not be read' : 'Selected image');
  $('p-given').textContent = given;
  $('p-suggested').textContent = same ? `${suggested} (the same)` : suggested;
  $('p-prob').textContent = percent(D.prob[r]);
  $('p-clean').textContent = decimals(D.p_clean[r]);
  $('p-agree').parentElement.hidden = D.p0[r] === null;
  $('p-agree').textContent = `${decimals(D.p0[r])}, ${decimals(D.p1[r])}; ${D.agree[r] ? 'they agree' : 'they differ'}`;
  $('p-decision').textContent = badge(codes[r]) || 'undecided';
  $('p-file').textContent = D.files[r];
  try { $('p-file').href = D.uri + D.files[r].split(D.sep).map(encodeURIComponent).join('/'); } catch (e) { $('p-file').removeAttribute('href'); }
  $('relabel-to').textContent = same ? 'same as given' : suggested;
  $('relabel').disabled = same;
  for (const b of $('classes').children) { b.classList.toggle('is-given', +b.dataset.c === D.label[r]); b.classList.toggle('is-suggested', !same && +b.dataset.c === D.suggested[r]); }
}

// ---- classes
function classButton(c, act) {
  const b = document.createElement('button'), span = document.createElement('span');
  b.type = 'button';
  b.dataset.c = c;
  b.title = D.classes[c];
  span.textContent = D.classes[c];
  b.append(span);
  if (classKey(c)) { const k = document.createElement('kbd'); k.textContent = classKey(c); b.append(k); }
  b.addEventListener('click', () => act(c));
  return b;
}
function pick(c) { $('picker').close(); scroll.focus({preventScroll: true}); decideCurrent(FIRST + c); }
function listClasses() {
  const text = $('picker-search').value.toLowerCase();
  $('picker-list').replaceChildren(...D.classes.map((c, i) => i).filter(i => D.classes[i].toLowerCase().includes(text)).slice(0, 200).map(i => classButton(i, pick)));
}
function openPicker() { if (!view.length) return; $('picker-search').value = ''; listClasses(); $('picker').showModal(); }

// ---- keys
const KEYS = {
  k: () => decideCurrent(KEEP), r: relabelCurrent, d: () => decideCurrent(DROP), x: () => decideCurrent(UNDECIDED), u: undo, c: openPicker,
  n: () => { if (!nextUndecided()) say('No undecided image below.'); }, '/': () => { openFilters(true); $('search').focus(); $('search').select(); }, '?': () => $('help').showModal(),
};
const page = () => Math.max(1, Math.floor(scroll.clientHeight / (cardH + gap))) * cols;
const MOVES = {ArrowLeft: () => -1, ArrowRight: () => 1, ArrowUp: () => -cols, ArrowDown: () => cols, PageUp: () => -page(), PageDown: page, Home: () => -N, End: () => N};
function onKey(e) {
  if (document.querySelector('dialog[open]')) return;
  const at = e.target, typing = at.matches('select, input:not([type=range])');
  if ((e.ctrlKey || e.metaKey) && e.key.toLowerCase() === 'z' && !e.shiftKey && !typing) { e.preventDefault(); return undo(); }
  if (e.ctrlKey || e.metaKey || e.altKey) return;
  if (e.key === 'Escape') { if ($('notice').hidden || typing) scroll.focus({preventScroll: true}); else notice(''); return; }
  if (at === $('search') && e.key === 'Enter') { e.preventDefault(); return scroll.focus({preventScroll: true}); }
  if (typing) return;
  const key = e.key.length === 1 ? e.key.toLowerCase() : e.key, c = '1234567890'.indexOf(key);
  if (MOVES[key] && at.type !== 'range') { e.preventDefault(); moveTo(cursor + MOVES[key]()); }
  else if (KEYS[key]) { e.preventDefault(); KEYS[key](); }
  else if (key.length === 1 && c >= 0 && c < K) { e.preventDefault(); decideCurrent(FIRST + c); }
  else if (key === 'Enter' && (at === scroll || at === document.body)) { e.preventDefault(); relabelCurrent(); }
}
function openFilters(open) { $('filters').classList.toggle('open', open); $('filter-button').setAttribute('aria-expanded', open); measure(); }

// ---- start
let pointer = false;
addEventListener('pointerdown', () => { pointer = true; }, true);
addEventListener('keydown', () => { pointer = false; }, true);
document.addEventListener('keydown', onKey);
const click = (id, f) => $(id).addEventListener('click', f);
click('keep', KEYS.k); click('relabel', relabelCurrent); click('drop', KEYS.d); click('class', openPicker); click('undo', undo);
click('save', download); click('load', () => $('file').click()); click('help-button', KEYS['?']); click('picker-close', () => $('picker').close()); click('notice-close', () => notice(''));
click('bulk-relabel', () => bulk(r => FIRST + D.suggested[r], r => D.suggested[r] !== D.label[r], 'Relabelled to their suggestions'));
click('bulk-keep', () => bulk(KEEP, () => true, 'Kept'));
click('bulk-drop', () => bulk(DROP, () => true, 'Dropped'));
click('filter-button', () => openFilters(!$('filters').classList.contains('open')));
click('show-all', () => { $('filters').reset(); filter(); });
$('file').addEventListener('change', e => { const f = e.target.files[0]; if (f) load(f).then(() => { e.target.value = ''; }); });
$('filters').addEventListener('submit', e => e.preventDefault());
$('filters').addEventListener('input', filter);
$('filters').addEventListener('change', e => { if (pointer && e.target.type !== 'search') scroll.focus({preventScroll: true}); }); // so that keys decide again
$('picker-search').addEventListener('input', listClasses);
$('picker-search').addEventListener('keydown', e => {
  const b = $('picker-list').firstElementChild, c = e.key.length === 1 ? '1234567890'.indexOf(e.key) : -1;
  if (e.key === 'Enter' && b) { e.preventDefault(); b.click(); }
  else if (c >= 0 && c < K && !e.target.value && !D.classes.some(o => o.includes(e.key))) { e.preventDefault(); pick(c); }
});
addEventListener('dragover', e => e.preventDefault());
addEventListener('drop', e => { e.preventDefault(); if (e.dataTransfer.files[0]) load(e.dataTransfer.files[0]); });
new ResizeObserver(measure).observe(scroll);

document.title = $('title').textContent = D.title;
options($('given'), D.classes, D.label);
options($('suggested'), D.classes, D.suggested);
if (D.group) { $('by-group').hidden = false; $('group-name').textContent = D.group.name; options($('group'), D.group.names, D.group.ids); }
if (K <= 10) D.classes.forEach((c, i) => $('classes').append(classButton(i, j => { scroll.focus({preventScroll: true}); decideCurrent(FIRST + j); })));
recallAtStart();
filter();
scroll.focus({preventScroll: true});
if (broken.size) notice(`${number(broken.size)} images could not be read and have a placeholder; settings.json names them.`);
})();
