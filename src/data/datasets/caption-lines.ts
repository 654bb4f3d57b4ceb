import {
  CHEST_STYLES,
  type ChestStyle,
  chestPrompts,
  EMBED_STYLES,
  type EmbedStyle,
  embedPrompts,
  FIVE_FINDINGS,
  NIH_FINDINGS,
  RSNA_STYLES,
  type RsnaStyle,
  rsnaPrompts,
} from '../captions/index.js'
import type { Problems } from '../problems.js'
import type { ClassPrompt } from '../sample.js'
import { openTable, type Table } from '../tables/index.js'
import { chexpertRows } from './chexpert-table.js'
import { embedRows, sortEmbedTables } from './embed-tables.js'
import { nihRows } from './nih-table.js'
import { rsnaImages, sortRsnaTables } from './rsna-table.js'

/*
 * Captions and prompts from tables alone, as a stream: what `cleft caption` shows. No image is needed.
 */

export const CAPTION_KINDS = ['chexpert', 'embed', 'nih', 'rsna'] as const
export type CaptionKind = (typeof CAPTION_KINDS)[number]

export const CAPTION_STYLES: Readonly<Record<CaptionKind, readonly string[]>> = {
  chexpert: CHEST_STYLES,
  embed: EMBED_STYLES,
  nih: ['plain', 'prompt'],
  rsna: RSNA_STYLES,
}

export interface CaptionLine {
  /** Counted from 0 in the table before any filter. */
  readonly row: number
  /** As the table has it. */
  readonly path: string
  readonly caption?: string
  /** RSNA, which has no captions: 0 or 1. */
  readonly label?: number
}

export interface Captions {
  /** Class prompts by task. */
  readonly prompts: ReadonlyMap<string, readonly ClassPrompt[]>
  /** What a person should know: rows that are left out on purpose, tables that are missing. */
  readonly notes: readonly string[]
  lines(): AsyncGenerator<readonly CaptionLine[]>
}

async function oneTable(kind: string, tables: readonly Table[]): Promise<Table> {
  if (tables.length === 1) return tables[0]!
  throw new Error(`expected one table of ${kind}, but received ${tables.length}`)
}

/**
 * @param style one of CAPTION_STYLES[kind]; default: its first
 * @throws Error for another style; TableError where tables or columns are missing
 */
export async function captionsOf(
  kind: CaptionKind,
  paths: readonly string[],
  style = CAPTION_STYLES[kind][0]!,
  problems: Problems,
): Promise<Captions> {
  if (!CAPTION_STYLES[kind].includes(style)) {
    throw new Error(`expected a style of ${kind} (${CAPTION_STYLES[kind].join(', ')}), but received ${style}`)
  }
  const tables = await Promise.all(paths.map(openTable))
  switch (kind) {
    case 'chexpert':
      return chexpert(await oneTable(kind, tables), style as ChestStyle, problems)
    case 'nih':
      return nih(await oneTable(kind, tables), style as 'plain' | 'prompt', problems)
    case 'rsna':
      return rsna(tables, style as RsnaStyle, problems)
    case 'embed':
      return embed(tables, style as EmbedStyle, problems)
  }
}

function chexpert(table: Table, style: ChestStyle, problems: Problems): Captions {
  return {
    prompts: new Map([['five', chestPrompts(FIVE_FINDINGS, style)]]),
    notes: [],
    async *lines() {
      for await (const rows of chexpertRows(table, { style }, problems)) {
        yield rows.map(({ row, path, caption }) => ({ row, path, caption }))
      }
    },
  }
}

function nih(table: Table, style: 'plain' | 'prompt', problems: Problems): Captions {
  return {
    prompts: new Map([['findings', chestPrompts(NIH_FINDINGS, style)]]),
    notes: [],
    async *lines() {
      for await (const rows of nihRows(table, { style }, problems)) {
        yield rows.map(({ row, path, caption }) => ({ row, path, caption }))
      }
    },
  }
}

function rsna(tables: readonly Table[], style: RsnaStyle, problems: Problems): Captions {
  const { labels } = sortRsnaTables(tables)
  return {
    prompts: new Map([['pneumonia', rsnaPrompts(style)]]),
    notes: [],
    async *lines() {
      yield (await rsnaImages(labels, problems)).map(({ row, path, label }) => ({ row, path, label }))
    },
  }
}

function embed(tables: readonly Table[], style: EmbedStyle, problems: Problems): Captions {
  const sorted = sortEmbedTables(tables)
  const lesions = style === 'natural' || style === 'structural'
  const notes: string[] = []
  if (lesions && sorted.full === null) {
    notes.push(`${sorted.clinical.path} has no columns of mass and calcification: captions do not mention them`)
  }
  return {
    prompts: new Map([
      ['birads', embedPrompts('birads')],
      ['density', embedPrompts('density')],
    ]),
    notes,
    async *lines() {
      let without = 0
      for await (const rows of embedRows(sorted, { style, prefixes: false }, problems)) {
        const used = rows.flatMap(({ row, path, caption }) => (caption === null ? [] : { row, path, caption }))
        without += rows.length - used.length
        yield used
      }
      if (without > 0) {
        const also = style === 'structural' ? ', procedure or reason' : ''
        notes.push(`${without} 2D images without density, BI-RADS${also} are left out, as published`)
      }
    },
  }
}
