import { existsSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { chexpertRoot } from './chexpert.js'
import { embedTablesIn } from './embed.js'
import { imagesBelow } from './folder.js'
import { NIH_TABLES } from './nih.js'
import { existingFolder } from './paths.js'
import type { DatasetSpec } from './spec.js'

type Kind = DatasetSpec['kind']

const holds = (root: string, name: string): boolean =>
  ['', '.gz', '.zip'].some((ending) => existsSync(join(root, name + ending)))

/** What a folder looks like, by the tables and files that each data set is downloaded with. */
const SIGNS: Readonly<Partial<Record<Kind, (root: string) => boolean>>> = {
  chexpert: (root) =>
    holds(chexpertRoot(root), 'train.csv') && /CheXpert|chexpert/.test(readdirSync(root).join() + root),
  rsna: (root) => holds(root, 'stage_2_train_labels.csv'),
  embed: (root) => embedTablesIn(root).some((file) => /metadata/i.test(file)),
  nih: (root) => NIH_TABLES.some((name) => holds(root, name)),
  webdataset: (root) => readdirSync(root).some((name) => name.endsWith('.tar')),
}

/**
 * The kind of data set that a folder holds.
 *
 * @throws Error where it is like none, or like several
 */
export function guessKind(root: string): Kind {
  existingFolder(root)
  const found = (Object.keys(SIGNS) as (keyof typeof SIGNS)[]).filter((kind) => SIGNS[kind]!(root))
  if (found.length === 1) return found[0]!
  if (found.length > 1)
    throw new Error(
      `expected one kind of data set in ${root}, but it could be ${found.join(' or ')}; say which with --kind`,
    )
  const withImages = readdirSync(root, { withFileTypes: true }).filter(
    (entry) => entry.isDirectory() && imagesBelow(root, entry.name).length > 0,
  )
  if (withImages.length > 1) return 'folder'
  throw new Error(`expected a data set in ${root}, but it looks like none; say which with --kind`)
}
