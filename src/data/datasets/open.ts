import { openChexpert, openFiveWay } from './chexpert.js'
import type { LoadedDataset } from './dataset.js'
import { openEmbed } from './embed.js'
import { openFolder } from './folder.js'
import { openNih } from './nih.js'
import { openRsna } from './rsna.js'
import type { DatasetSpec, FullSpec } from './spec.js'
import { parseSpec } from './spec.js'
import { openTableDataset } from './table.js'
import { openWebdataset } from './webdataset.js'

function openKind(spec: FullSpec): Promise<LoadedDataset> {
  switch (spec.kind) {
    case 'chexpert':
      return openChexpert(spec)
    case 'chexpert-5x200':
      return openFiveWay(spec)
    case 'rsna':
      return openRsna(spec)
    case 'embed':
      return openEmbed(spec)
    case 'nih':
      return openNih(spec)
    case 'folder':
      return openFolder(spec)
    case 'table':
      return openTableDataset(spec)
    case 'webdataset':
      return openWebdataset(spec)
  }
}

/**
 * Reads the tables of a data set. No image is opened.
 *
 * ```ts
 * const train = await openDataset({ kind: 'chexpert', root: '/data/CheXpert-v1.0-small', fraction: 0.1 })
 * ```
 *
 * @throws Error where the spec is wrong, the folder, tables or columns are missing, or more rows than `maxProblems` are unusable
 */
export async function openDataset(spec: DatasetSpec): Promise<LoadedDataset> {
  return await openKind(parseSpec(spec))
}
