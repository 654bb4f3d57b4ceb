import type { Decoder, PrepareSettings } from '../../../src/data/loader/decoders.js'
import { Problems } from '../../../src/data/problems.js'
import type { Dataset, Sample } from '../../../src/data/sample.js'
import { prepareImage } from './decode-module.mjs'

export const settings: PrepareSettings = { size: 16, bits: 8, windowing: 'published' }

export const decodeModule = new URL('decode-module.mjs', import.meta.url).href

/** Decodes in this thread, and knows what it was asked for. */
export class TestDecoder implements Decoder {
  readonly concurrency = 4
  readonly asked: string[] = []
  running = 0
  most = 0

  constructor(readonly settings: PrepareSettings) {}

  async prepare(source: string | Uint8Array) {
    this.asked.push(String(source))
    this.running += 1
    this.most = Math.max(this.most, this.running)
    try {
      return await prepareImage(source, this.settings)
    } finally {
      this.running -= 1
    }
  }

  async close() {}
}

export function sampleOf(path: string, row: number, more: Partial<Sample> = {}): Sample {
  return {
    row,
    path,
    patient: `patient ${row}`,
    caption: `caption ${row} on side left`,
    promptPrefix: null,
    label: row % 3 === 0 ? 0 : 1,
    findings: null,
    attributes: { sex: null, age: null, view: null, side: null },
    ...more,
  }
}

export function datasetOf(samples: readonly Sample[], kind = 'table'): Dataset {
  return {
    kind,
    root: '/data',
    findings: [],
    classes: [],
    samples,
    problems: new Problems(),
    hash: `hash of ${samples.length} ${kind}`,
  }
}

export const numbered = (count: number, kind?: string) =>
  datasetOf(
    Array.from({ length: count }, (_, row) => sampleOf(`image${row}.png`, row)),
    kind,
  )
