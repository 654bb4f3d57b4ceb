/*
 * HTML in which every value is text unless it was made here: a class that is called `<script>` stays a name.
 */

export class Html {
  constructor(readonly markup: string) {}
}

type Value = Html | string | number | null | undefined | false | readonly Value[]

const entities: Readonly<Record<string, string>> = {
  '&': '&amp;',
  '<': '&lt;',
  '>': '&gt;',
  '"': '&quot;',
  "'": '&#39;',
}

/** Text for elements and quoted attributes, of HTML and of SVG. What XML forbids and what reorders text is shown as a box. */
export function escapeText(text: string): string {
  return (
    text
      // halves of characters
      .replace(/\p{Surrogate}/gu, '\ufffd')
      // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is taken out
      .replace(/[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069\ufffe\uffff]/g, '\u25a1')
      .replace(/[&<>"']/g, (character) => entities[character]!)
  )
}

/** html`<td>${name}</td>`: escapes what is put in; null, undefined and false are nothing; lists are joined. */
export function html(parts: TemplateStringsArray, ...values: readonly Value[]): Html {
  return new Html(parts.reduce((text, part, k) => text + markupOf(values[k - 1]) + part))
}

function markupOf(value: Value): string {
  if (value === null || value === undefined || value === false) return ''
  if (value instanceof Html) return value.markup
  return Array.isArray(value) ? value.map(markupOf).join('') : escapeText(String(value))
}

/** A name for places with little room: on one line, cut to a length. */
export function shorten(name: string, length = 40): string {
  const line = name.replace(/\s+/g, ' ').trim()
  return line.length > length ? `${line.slice(0, length - 1)}\u2026` : line
}
