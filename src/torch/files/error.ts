/** A weights file that cannot be read or written: damaged, hostile, of another format, or not there. One sentence. */
export class WeightsFileError extends Error {
  override readonly name = 'WeightsFileError'

  /**
   * @param path the file the message is about
   * @param message what was expected, what came, and what to do
   */
  constructor(
    readonly path: string,
    message: string,
    options?: ErrorOptions,
  ) {
    super(message, options)
  }
}

/**
 * A name that came out of a file, for a message: on one line, without control characters (which could drive a terminal),
 * and short.
 */
export function quote(text: string): string {
  const short = text.length > 120 ? `${text.slice(0, 117)}...` : text
  // JSON escapes C0 controls only; C1 controls, line separators and marks that reorder text are escaped here
  const unsafe = /[\u007f-\u009f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g
  return JSON.stringify(short).replace(unsafe, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, '0')}`)
}

/** Up to five names for a message, and how many more there are. */
export function quoteList(names: readonly string[]): string {
  const shown = names.slice(0, 5).map(quote).join(', ')
  return names.length > 5 ? `${shown} and ${names.length - 5} more` : shown
}

/** The message of anything that was thrown, on one line. */
export function reasonOf(thrown: unknown): string {
  const message = thrown instanceof Error ? thrown.message : String(thrown)
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is taken out
  return message.replace(/[\s\u0000-\u001f\u007f-\u009f]+/g, ' ').slice(0, 500)
}
