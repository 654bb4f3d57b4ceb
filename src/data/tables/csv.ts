import { CsvError, type Options, type Parser, parse } from 'csv-parse'
import { TableError } from './bytes.js'

/*
 * CSV by csv-parse. Measured on CheXpert's train.csv (25 MB, 223,415 lines, 2 cores): csv-parse 0.9 s, papaparse as a stream 26 s,
 * udsv 0.2 s; but udsv takes a short row's missing cells from the next row and drops an unclosed quote, without a word.
 *
 * Up to the first quote, which most of these tables never have, lines and cells are where the separators are, and splitting finds them in a
 * quarter of the time.
 */

/** Bytes of one line at most. A quote that nobody closes would else swallow the rest of the file. */
const MAX_RECORD = 1 << 20
const TOO_LONG = `expected rows of less than ${MAX_RECORD} bytes, but one is longer; is a quote not closed?`

/** The separator that the header uses. */
export function delimiterOf(header: string): ',' | '\t' | ';' {
  const counts = ([',', '\t', ';'] as const).map((delimiter) => ({ delimiter, count: header.split(delimiter).length }))
  return counts.reduce((most, each) => (each.count > most.count ? each : most)).delimiter
}

/** The sentence for an error of csv-parse. */
function explain(error: Error): string {
  if (!(error instanceof CsvError)) return error.message
  if (error.code === 'CSV_QUOTE_NOT_CLOSED') return 'expected a quote to be closed, but the file ends within it'
  if (error.code === 'CSV_MAX_RECORD_SIZE') return TOO_LONG
  return error.message
}

const [QUOTE, LINE_FEED, CARRIAGE_RETURN] = [0x22, 0x0a, 0x0d]

/** Lines without any quote. */
function splitLines(text: string, delimiter: string): string[][] {
  const lines = text.includes('\r') ? text.split(/\r\n|\n|\r/) : text.split('\n')
  const records: string[][] = []
  for (const line of lines) if (line !== '') records.push(line.split(delimiter))
  return records
}

const withoutMark = (bytes: Buffer): Buffer =>
  bytes[0] === 0xef && bytes[1] === 0xbb && bytes[2] === 0xbf ? bytes.subarray(3) : bytes

async function* prepend(first: Buffer, rest: AsyncIterator<Buffer>): AsyncGenerator<Buffer> {
  yield first
  for (let next = await rest.next(); next.done !== true; next = await rest.next()) yield next.value
}

/**
 * The cells of every line, the header's included, as batches. Empty lines are skipped, as pandas does.
 *
 * @throws TableError where a quote is never closed, or a line is longer than 1 MiB
 */
export async function* csvRecords(
  bytes: AsyncIterable<Buffer>,
  delimiter: string,
  path: string,
): AsyncGenerator<string[][]> {
  const chunks = bytes[Symbol.asyncIterator]()
  try {
    let rest: Buffer = Buffer.alloc(0)
    let first = true
    for (let next = await chunks.next(); next.done !== true; next = await chunks.next()) {
      const chunk = next.value
      const end = chunk.lastIndexOf(LINE_FEED)
      // also where lines end in another way, or characters are not in UTF-8
      if (chunk.includes(QUOTE) || (first && (end < 0 || chunk.includes(0)))) {
        yield* parsedRecords(prepend(Buffer.concat([rest, chunk]), chunks), delimiter, path)
        return
      }
      if (end < 0) rest = Buffer.concat([rest, chunk])
      else {
        const whole = Buffer.concat([rest, chunk.subarray(0, end + 1)])
        rest = chunk.subarray(end + 1)
        yield splitLines((first ? withoutMark(whole) : whole).toString('utf8'), delimiter)
        first = false
      }
      if (rest.length > MAX_RECORD) throw new TableError(`${path}: ${TOO_LONG}`)
    }
    yield splitLines((first ? withoutMark(rest) : rest).toString('utf8'), delimiter)
  } finally {
    await chunks.return?.()
  }
}

/** The same for lines with quotes. */
async function* parsedRecords(
  bytes: AsyncIterable<Buffer>,
  delimiter: string,
  path: string,
): AsyncGenerator<string[][]> {
  let records: string[][] = []
  let failure: Error | undefined
  const options: Options = {
    bom: true,
    delimiter,
    record_delimiter: ['\r\n', '\n', '\r'],
    skip_empty_lines: true,
    // rows of another length are the table's to judge, which knows the row
    relax_column_count: true,
    relax_quotes: true,
    max_record_size: MAX_RECORD,
  }
  const parser: Parser = parse(options)
  // events take a third less time here than the stream's own iterator, or csv-parse's on_record
  parser.on('data', (record: string[]) => records.push(record))
  const ended = new Promise<void>((resolve) => {
    parser.once('end', resolve)
    parser.once('error', (error) => {
      failure = error
      resolve()
    })
  })
  const take = (): string[][] => {
    const taken = records
    records = []
    return taken
  }
  let sinceLineEnd = 0
  try {
    for await (const chunk of bytes) {
      // csv-parse counts what is in the cells; a line of nothing but separators would be cells without end
      const end = Math.max(chunk.lastIndexOf(LINE_FEED), chunk.lastIndexOf(CARRIAGE_RETURN))
      sinceLineEnd = end < 0 ? sinceLineEnd + chunk.length : chunk.length - end - 1
      if (sinceLineEnd > MAX_RECORD) throw new TableError(`${path}: ${TOO_LONG}`)
      await new Promise<void>((resolve) => parser.write(chunk, () => resolve()))
      yield take()
      if (failure !== undefined) throw new TableError(`${path}: ${explain(failure)}`)
    }
    parser.end()
    await ended
    yield take()
    if (failure !== undefined) throw new TableError(`${path}: ${explain(failure)}`)
  } finally {
    parser.destroy()
  }
}
