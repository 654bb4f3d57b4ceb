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

/** What XML forbids (control characters, halves of characters) and what reorders text is shown as a box. */
export function printable(text: string): string {
  const unsafe = /[^\P{Cc}\t\n\r]|\p{Surrogate}|\p{Noncharacter_Code_Point}|[\u202a-\u202e\u2066-\u2069]/gu
  return text.replace(unsafe, '\u25a1')
}

/** Text for elements and quoted attributes, of HTML and of SVG. */
export function escapeText(text: string): string {
  return printable(text).replace(/[&<>"']/g, (character) => entities[character]!)
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

/** A name for places with little room: printable, on one line, cut to a length. */
export function shorten(name: string, length = 40): string {
  const characters = Array.from(printable(name).replace(/\s+/g, ' ').trim())
  return characters.length > length ? `${characters.slice(0, length - 1).join('')}\u2026` : characters.join('')
}
