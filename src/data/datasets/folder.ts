import { readdirSync, statSync } from 'node:fs'
import { join, posix } from 'node:path'
import { findingWords } from '../captions/index.js'
import { Problems } from '../problems.js'
import type { ClassPrompt, Sample } from '../sample.js'
import { LoadedDataset, withPrompts } from './dataset.js'
import { existingFolder, IMAGE_FILE, patientOfPath } from './paths.js'
import { select } from './select.js'
import type { SpecOf } from './spec.js'

/** A template with a class's name in words; without a template the words alone. */
export const fillTemplate = (template: string | null | undefined, name: string): string =>
  (template ?? '{class}').replaceAll('{class}', findingWords(name))

export const templatePrompts = (names: readonly string[], template: string | null | undefined): ClassPrompt[] =>
  names.map((name) => ({ name, prompts: [fillTemplate(template, name)] }))

/** The image files below a folder, sorted, paths from `root`. Links to files are followed, links to folders are not: they may go in a circle. */
export function imagesBelow(root: string, folder: string): string[] {
  return readdirSync(join(root, folder), { withFileTypes: true })
    .sort((left, right) => (left.name < right.name ? -1 : 1))
    .flatMap((entry) => {
      const path = posix.join(folder, entry.name)
      if (entry.isDirectory()) return imagesBelow(root, path)
      if (!IMAGE_FILE.test(entry.name)) return []
      const isFile = entry.isFile() || statSync(join(root, path), { throwIfNoEntry: false })?.isFile() === true
      return isFile ? [path] : []
    })
}

/**
 * Whose image a path is of.
 *
 * @throws Error where the pattern is none, or has no group
 */
export function patientBy(pattern: string | undefined): (path: string) => string {
  if (pattern === undefined) return patientOfPath
  let expression: RegExp
  try {
    expression = new RegExp(pattern)
  } catch {
    throw new Error(`expected patientPattern to be a regular expression, but received ${pattern}`)
  }
  return (path) => {
    const found = expression.exec(path)
    if (found !== null && found[1] === undefined) {
      throw new Error(
        `expected patientPattern to have a group that is the patient, but ${pattern} gave none for ${path}`,
      )
    }
    return found?.[1] ?? path
  }
}

export async function openFolder(spec: SpecOf<'folder'>): Promise<LoadedDataset> {
  const { root } = spec
  existingFolder(root)
  const patientOf = patientBy(spec.patientPattern)
  const names = readdirSync(root, { withFileTypes: true })
    .filter((entry) => entry.isDirectory() && !entry.name.startsWith('.'))
    .map(({ name }) => name)
    .filter((name) => imagesBelow(root, name).length > 0)
    .sort()
  if (names.length === 0) throw new Error(`expected a folder of images per class in ${root}, but there is none`)
  const paths = names.flatMap((name, label) => imagesBelow(root, name).map((path) => ({ path, label })))
  const template = spec.captions?.template
  const all = paths.map(
    ({ path, label }, row): Sample => ({
      row,
      path,
      patient: patientOf(path),
      caption: template === undefined ? null : fillTemplate(template, names[label]!),
      promptPrefix: null,
      label,
      findings: null,
      attributes: { sex: null, age: null, view: null, side: null },
    }),
  )
  const classes = withPrompts(templatePrompts(names, template), spec.prompts)
  const selection = await select('folder', all, classes, spec)
  return new LoadedDataset({ kind: 'folder', root, findings: [], classes, problems: new Problems(), ...selection })
}
