import { Html, html } from './html.js'

/*
 * The frame of a report: one file that needs nothing else. Its policy forbids scripts and requests of any kind, should a name
 * ever get through as markup.
 */

const style = `
:root { --ink: #1c1e21; --soft: #55595f; --line: #d5d8dc; --tint: #f4f6f8; --accent: #0b5394; }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0; color: var(--ink); background: #fff; font: .94rem/1.5 system-ui, -apple-system, "Segoe UI", Roboto, Helvetica, Arial, sans-serif; }
main, header, footer, nav { max-width: 70rem; margin: 0 auto; padding: 0 1.5rem; }
header { padding-top: 2rem; }
h1 { font-size: 1.7rem; line-height: 1.25; margin: 0 0 .3rem; overflow-wrap: anywhere; }
h2 { font-size: 1.25rem; margin: 2.6rem 0 .6rem; padding-top: .6rem; border-top: 1px solid var(--line); }
h3 { font-size: 1.02rem; margin: 1.6rem 0 .4rem; overflow-wrap: anywhere; }
p { margin: .4rem 0 .8rem; max-width: 46rem; }
.lead { color: var(--soft); font-size: 1.02rem; margin: 0; max-width: none; }
nav { margin-top: 1rem; }
nav ul { list-style: none; display: flex; flex-wrap: wrap; gap: .2rem 1.1rem; margin: 0; padding: .55rem .9rem; background: var(--tint); border-radius: 6px; }
a { color: var(--accent); }
.notes { border-left: 4px solid #c77700; background: #fff8ec; padding: .6rem 1rem; margin: 1.2rem 0; }
.notes h2 { border: 0; margin: 0; padding: 0; font-size: 1rem; }
.notes ul { margin: .3rem 0 0; padding-left: 1.2rem; }
.notes li { max-width: 52rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; margin: .6rem 0 1rem; font-size: .92rem; }
caption { text-align: left; color: var(--soft); padding-bottom: .35rem; caption-side: top; }
th, td { padding: .3rem .7rem; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line); }
thead th { border-bottom: 2px solid #9aa0a6; vertical-align: bottom; font-weight: 600; }
tbody th { font-weight: 500; overflow-wrap: break-word; min-width: 7.5rem; max-width: 18rem; }
td { overflow-wrap: break-word; }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.interval { display: block; color: var(--soft); font-size: .86em; }
.soft { color: var(--soft); }
code { font: .88em ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace; overflow-wrap: anywhere; }
figure { margin: 1rem 0; }
figure > img { max-width: 100%; height: auto; display: block; }
figcaption { color: var(--soft); font-size: .9rem; max-width: 46rem; margin-top: .3rem; overflow-wrap: anywhere; }
.beside { display: flex; flex-wrap: wrap; gap: 0 2rem; }
.beside > figure { max-width: 100%; }
.beside > figure > figcaption { max-width: min(46rem, 100%); width: 0; min-width: min(46rem, 100%); }
.example { border: 1px solid var(--line); border-radius: 6px; padding: .8rem 1rem; margin: .9rem 0; }
.example h3 { margin-top: 0; }
.tiles { display: flex; flex-wrap: wrap; gap: .8rem; }
.tiles figure { margin: 0; width: 10rem; }
.tiles img { width: 100%; background: #000; }
.pair { display: flex; gap: 1.2rem; align-items: flex-start; }
.pair > figure { flex: 0 0 11rem; margin: 0; }
.pair > figure img { width: 11rem; background: #000; }
.pair > div { flex: 1; min-width: 0; }
.right { font-weight: 600; color: #006b4f; }
.wrong { color: #8a3b00; }
footer { color: var(--soft); font-size: .88rem; padding-top: 2rem; padding-bottom: 3rem; }
@media (max-width: 40rem) { .pair { flex-direction: column; } }
@media print {
  @page { margin: 14mm; }
  html { font-size: 10.5pt; }
  main, header, footer { max-width: none; padding-left: 0; padding-right: 0; }
  nav { display: none; }
  a { color: inherit; text-decoration: none; }
  h2, h3, caption { break-after: avoid; }
  figure, tr, .example, .notes { break-inside: avoid; }
  thead { display: table-header-group; }
  .wide { overflow: visible; }
  .notes, .notes h2 { background: none; }
  th, td { padding: .2rem .4rem; }
}
`

export interface Section {
  readonly id: string
  readonly title: string
  readonly body: Html
}

export interface Page {
  readonly title: string
  readonly lead: Html
  readonly notes: readonly string[]
  readonly sections: readonly Section[]
  readonly footer: Html
}

export function renderPage({ title, lead, notes, sections, footer }: Page): string {
  return html`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'">
<meta name="referrer" content="no-referrer">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>${title}</title>
<style>${new Html(style)}</style>
</head>
<body>
<header>
<h1>${title}</h1>
<p class="lead">${lead}</p>
</header>
<nav aria-label="Contents"><ul>
${sections.map(({ id, title: own }) => html`<li><a href="#${id}">${own}</a></li>\n`)}</ul></nav>
<main>
${
  notes.length > 0 &&
  html`<aside class="notes" aria-labelledby="notes"><h2 id="notes">Before reading the numbers</h2>
<ul>${notes.map((note) => html`<li>${note}</li>`)}</ul></aside>
`
}${sections.map(
  ({ id, title: own, body }) => html`<section aria-labelledby="${id}">
<h2 id="${id}">${own}</h2>
${body}
</section>
`,
)}</main>
<footer>
${footer}
</footer>
</body>
</html>
`.markup
}

export interface Column {
  readonly name: string
  /** Numbers stand right. Default: text. */
  readonly number?: boolean
}

/** The first cell of each row names it. */
export function table(
  caption: string,
  columns: readonly Column[],
  rows: readonly (readonly (Html | string | number)[])[],
): Html {
  const kind = (column: Column | undefined) => (column?.number ? html` class="number"` : null)
  return html`<div class="wide"><table>
<caption>${caption}</caption>
<thead><tr>${columns.map((column) => html`<th scope="col"${kind(column)}>${column.name}</th>`)}</tr></thead>
<tbody>
${rows.map(
  ([first, ...others]) => html`<tr><th scope="row">${first}</th>${others.map(
    (cell, k) => html`<td${kind(columns[k + 1])}>${cell}</td>`,
  )}</tr>
`,
)}</tbody>
</table></div>`
}

/** An image that is in the file itself. @param alternative what it shows, for who does not see it */
export function figure(uri: string, alternative: string, caption: Html | string): Html {
  return html`<figure><img src="${uri}" alt="${alternative}"><figcaption>${caption}</figcaption></figure>`
}
