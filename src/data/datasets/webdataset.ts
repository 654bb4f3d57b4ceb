import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { messageOf } from '../../setup/errors.js'
import { Problems } from '../problems.js'
import type { Sample } from '../sample.js'
import { LoadedDataset, withPrompts } from './dataset.js'
import { fillTemplate, patientBy, templatePrompts } from './folder.js'
import { existingFolder, IMAGE_FILE, leavesFolder, pathBelow } from './paths.js'
import { byValue } from './rows.js'
import { select } from './select.js'
import type { SpecOf } from './spec.js'
import { readEntry, type TarEntry, tarIndex } from './tar-index.js'

/*
 * Shards as the WebDataset library writes them: files with the same name up to its first dot are one sample: an image, and its caption (.txt),
 * class (.cls) or both and the patient (.json).
 */

interface Place {
  readonly shard: string
  readonly entry: TarEntry
}

/** A sample's files by ending, in lower case. */
type Group = { readonly key: string; readonly files: Map<string, TarEntry> }

function groupsOf(entries: readonly TarEntry[]): Group[] {
  const groups: Group[] = []
  for (const entry of entries) {
    const [, key, ending] = /^((?:.*\/)?[^./][^./]*)\.([^/]+)$/.exec(entry.name) ?? []
    if (key === undefined || ending === undefined) continue
    // the files of a sample lie side by side
    if (groups.at(-1)?.key !== key) groups.push({ key, files: new Map() })
    groups.at(-1)!.files.set(ending.toLowerCase(), entry)
  }
  return groups
}

interface Described {
  readonly caption: string | null
  readonly label: string | null
  readonly patient: string | null
}

const asText = (value: unknown): string | null =>
  typeof value === 'string' || typeof value === 'number' ? String(value) : null

async function describe(shard: string, { files }: Group, keys: SpecOf<'webdataset'>['keys']): Promise<Described> {
  const text = async (ending: string): Promise<string | null> => {
    const entry = files.get(ending)
    return entry === undefined ? null : (await readEntry(shard, entry)).toString('utf8').trim()
  }
  const json = await text('json')
  const record: Record<string, unknown> = json === null ? {} : { ...(JSON.parse(json) as object) }
  return {
    caption: (await text('txt')) ?? asText(record[keys.text]),
    label: (await text('cls')) ?? asText(record[keys.label]),
    patient: asText(record[keys.patient]),
  }
}

export async function openWebdataset(spec: SpecOf<'webdataset'>): Promise<LoadedDataset> {
  const { root } = spec
  existingFolder(root)
  const problems = new Problems()
  const shards =
    spec.shards ??
    readdirSync(root)
      .filter((name) => name.endsWith('.tar'))
      .sort()
  if (shards.length === 0) throw new Error(`expected shards (.tar) in ${root}, but there are none`)
  const patientOf = patientBy(spec.patientPattern)
  const places = new Map<string, Place>()
  const read: { sample: Sample; label: string | null }[] = []
  let row = 0
  for (const name of shards) {
    if (pathBelow(name) === null) throw new Error(leavesFolder(name))
    const shard = join(root, name)
    for (const group of groupsOf(await tarIndex(shard))) {
      const image = [...group.files.values()].find((entry) => IMAGE_FILE.test(entry.name))
      const path = `${name}/${image?.name ?? group.key}`
      try {
        if (image === undefined)
          throw new Error(`expected an image, but there are ${[...group.files.keys()].join(', ')}`)
        if (places.has(path)) throw new Error('expected each sample once, but there are two of this name')
        const { caption, label, patient } = await describe(shard, group, spec.keys)
        const own =
          caption ?? (label !== null && spec.captions !== null ? fillTemplate(spec.captions.template, label) : null)
        const attributes = { sex: null, age: null, view: null, side: null }
        places.set(path, { shard, entry: image })
        read.push({
          label,
          sample: {
            row,
            path,
            patient: patient ?? patientOf(path),
            caption: own,
            promptPrefix: null,
            label: null,
            findings: null,
            attributes,
          },
        })
      } catch (error) {
        problems.add(messageOf(error), { row, path })
      }
      row += 1
    }
  }
  problems.check(row, spec.maxProblems)
  const names = [...new Set(read.flatMap(({ label }) => label ?? []))].sort(byValue)
  const all = read.map(({ sample, label }) => (label === null ? sample : { ...sample, label: names.indexOf(label) }))
  const classes = withPrompts(templatePrompts(names, spec.captions?.template), spec.prompts)
  const selection = await select('webdataset', all, classes, spec)
  return new LoadedDataset({
    kind: 'webdataset',
    root,
    findings: [],
    classes,
    problems,
    ...selection,
    async open({ path }) {
      const place = places.get(path)
      if (place === undefined) throw new Error(`expected a sample of ${root}, but received ${path}`)
      return await readEntry(place.shard, place.entry)
    },
  })
}
