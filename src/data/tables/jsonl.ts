import { StringDecoder } from 'node:string_decoder'
import { TableError } from './bytes.js'

/** Characters of one line at most. */
const MAX_LINE = 1 << 24

/** A line of a JSONL file: its object, or what is wrong with it. */
export type JsonLine = { readonly record: Readonly<Record<string, unknown>> } | { readonly problem: string }

function parseLine(line: string): JsonLine {
  try {
    const value: unknown = JSON.parse(line)
    if (typeof value === 'object' && value !== null && !Array.isArray(value)) return { record: { ...value } }
    return { problem: `expected a JSON object, but the line holds ${line.slice(0, 40)}` }
  } catch {
    return { problem: `expected a JSON object, but the line is not JSON: ${line.slice(0, 40)}` }
  }
}

/**
 * One object a line, as batches; empty lines are skipped.
 *
 * @throws TableError where a line is longer than 16 Mi characters
 */
export async function* jsonLines(bytes: AsyncIterable<Buffer>, path: string): AsyncGenerator<JsonLine[]> {
  const decoder = new StringDecoder('utf8')
  let rest = ''
  let first = true
  const linesOf = (text: string): string[] => {
    const lines = (rest + text).split('\n')
    rest = lines.pop()!
    if (rest.length > MAX_LINE) throw new TableError(`${path}: expected lines of less than ${MAX_LINE} characters`)
    return lines
  }
  const parsed = (lines: readonly string[]): JsonLine[] =>
    lines.map((line) => line.trim()).flatMap((line) => (line === '' ? [] : [parseLine(line)]))
  for await (const chunk of bytes) {
    let text = decoder.write(chunk)
    if (first) text = text.replace(/^\ufeff/, '')
    first = false
    yield parsed(linesOf(text))
  }
  yield parsed([...linesOf(decoder.end()), rest])
}
