import { prepareImage } from './images/index.js'
import { sourceOf } from './loader/source.js'
import { Random } from './random.js'
import type { Dataset, Sample } from './sample.js'
import { contactSheet, type SheetItem, type SheetOptions } from './sheet.js'

export interface ExampleSheetOptions extends SheetOptions {
  /** Images on the sheet. Default: 24. */
  readonly count?: number
  /** Of what is drawn. Default: 0. */
  readonly seed?: number
}

/** How many files are tried before the sheet is made of fewer. */
const TRIES = 3

/** Images of a data set, drawn at random, as the padded square that training starts from, with their captions: a PNG. */
export async function exampleSheet(dataset: Dataset, options: ExampleSheetOptions = {}): Promise<Buffer> {
  const { count = 24, seed = 0, onWarning } = options
  const random = new Random(seed, 'sheet')
  const items: SheetItem[] = []
  for (const sample of draw(dataset.samples, count * TRIES, random)) {
    if (items.length === count) break
    try {
      const { padded } = await prepareImage(await sourceOf(dataset, sample))
      items.push({ image: padded, caption: captionOf(dataset, sample) })
    } catch (error) {
      onWarning?.(error instanceof Error ? error.message : String(error))
    }
  }
  if (items.length === 0) throw new Error('expected an image that can be read for the sheet, but there is none')
  return contactSheet(items, options)
}

/** Some of the samples, each once, without a copy of them all. */
function draw(samples: readonly Sample[], count: number, random: Random): Sample[] {
  const chosen = new Set<number>()
  while (chosen.size < Math.min(count, samples.length)) chosen.add(random.integer(samples.length))
  return [...chosen].map((index) => samples[index]!)
}

function captionOf({ classes }: Dataset, { caption, label, attributes: { view } }: Sample): string {
  const text = caption ?? (label === null ? 'no caption' : classes[label]!.name)
  return view === null ? text : `${view}: ${text}`
}
