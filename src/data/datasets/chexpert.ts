import { existsSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { CHEXPERT_FINDINGS, chestPrompts, FIVE_FINDINGS } from '../captions/index.js'
import { Problems } from '../problems.js'
import { BLANK, NEGATIVE, POSITIVE, type Sample } from '../sample.js'
import { makeManifest, type SplitName } from '../split.js'
import { openTable } from '../tables/index.js'
import { type ChexpertRow, chexpertRows } from './chexpert-table.js'
import { LoadedDataset, withPrompts } from './dataset.js'
import { existingFolder, findTable, leavesFolder, pathBelow, patientOfPath } from './paths.js'
import { byRank, chooseClasses, select } from './select.js'
import type { SpecOf } from './spec.js'

/** The folder of train.csv: the one given, or its only CheXpert-v1.0 or CheXpert-v1.0-small. */
export function chexpertRoot(root: string): string {
  existingFolder(root)
  if (existsSync(join(root, 'train.csv')) || existsSync(join(root, 'train.csv.gz'))) return root
  const inside = readdirSync(root).filter((name) => /^CheXpert-v1\.0/i.test(name))
  return inside.length === 1 ? join(root, inside[0]!) : root
}

const FIVE = FIVE_FINDINGS.map((name) => CHEXPERT_FINDINGS.indexOf(name))
const NO_FINDING = CHEXPERT_FINDINGS.indexOf('No Finding')
const ALL = CHEXPERT_FINDINGS.map((_, index) => index)

/** The one of the classes that is positive; null where none or several are. */
function onlyPositive(findings: Int8Array, classes: readonly number[]): number | null {
  const positive = classes.flatMap((finding, label) => (findings[finding] === POSITIVE ? label : []))
  return positive.length === 1 ? positive[0]! : null
}

function sampleOf(row: ChexpertRow, label: number | null): Sample {
  // as published: the table's first folder is the data set's own
  const path = row.path.replace(/^CheXpert-v1\.0[^/]*\//i, '')
  return {
    row: row.row,
    path,
    patient: patientOfPath(path),
    caption: row.caption,
    promptPrefix: null,
    label,
    findings: row.findings,
    attributes: { sex: row.sex, age: row.age, view: row.view === '' ? null : row.view, side: null },
  }
}

/**
 * Candidates of CheXpert-5x200: frontal, exactly one of the five findings positive, the other twelve negative or not mentioned; No Finding
 * is ignored. Construction: MGCA (github.com/HKU-MedAI/MGCA), but for the seeding.
 */
export function isFiveWay({ frontal, findings }: Pick<ChexpertRow, 'frontal' | 'findings'>): boolean {
  if (!frontal || onlyPositive(findings, FIVE) === null) return false
  return findings.every((value, finding) => {
    if (finding === NO_FINDING || (FIVE.includes(finding) && value === POSITIVE)) return true
    return value === NEGATIVE || value === BLANK
  })
}

async function fiveWayCandidates(
  file: string,
  style: 'plain' | 'negative' | 'prompt',
  problems: Problems,
): Promise<Sample[]> {
  const found: Sample[] = []
  for await (const rows of chexpertRows(await openTable(file), { style, views: null }, problems)) {
    for (const row of rows) if (isFiveWay(row)) found.push(sampleOf(row, onlyPositive(row.findings, FIVE)))
  }
  return found
}

const FIVE_WAY = '5x200'

/**
 * Patients of the images that CheXpert-5x200 takes with these settings, or with a smaller number and the same seed: a class's images are
 * the first of one seeded order.
 */
async function fiveWayPatients(
  file: string,
  { perClass, seed }: { perClass: number; seed: number },
): Promise<Set<string>> {
  const candidates = await fiveWayCandidates(file, 'plain', new Problems())
  const patients = new Set<string>()
  for (const label of FIVE.keys()) {
    const order = byRank(
      candidates.filter((sample) => sample.label === label),
      seed,
      FIVE_WAY,
    )
    for (const { patient } of order.slice(0, perClass)) patients.add(patient)
  }
  return patients
}

export async function openChexpert(spec: SpecOf<'chexpert'>): Promise<LoadedDataset> {
  const root = chexpertRoot(spec.root)
  const problems = new Problems()
  const official = spec.splits === 'official'
  const file = findTable(root, [
    spec.table ??
      (official && spec.split === 'valid' ? 'valid.csv' : official && spec.split === 'test' ? 'test.csv' : 'train.csv'),
  ])
  const classFindings = spec.labels === 'five' ? FIVE : ALL
  const all: Sample[] = []
  const rows = chexpertRows(await openTable(file), { style: spec.captions.style, views: spec.views }, problems)
  for await (const batch of rows) {
    for (const row of batch) {
      const sample = sampleOf(row, onlyPositive(row.findings, classFindings))
      if (pathBelow(sample.path) === null) problems.add(leavesFolder(row.path), { row: row.row })
      else all.push(sample)
    }
  }
  problems.check(all.length + problems.count, spec.maxProblems)
  const classes = withPrompts(
    chestPrompts(spec.labels === 'five' ? FIVE_FINDINGS : CHEXPERT_FINDINGS, spec.captions.style),
    spec.prompts,
  )
  const heldOut =
    spec.holdout !== null && (spec.split === 'train' || (spec.split === 'valid' && !official))
      ? await fiveWayPatients(spec.table === undefined ? file : findTable(root, ['train.csv']), spec.holdout)
      : new Set<string>()
  const notes = heldOut.size === 0 ? [] : [`${heldOut.size} patients are left out: CheXpert-5x200 is of them`]
  const ownSplit = async () =>
    makeManifest('chexpert', { [spec.split as SplitName]: [...new Set(all.map(({ patient }) => patient))].sort() })
  const selection = await select('chexpert', all, classes, spec, ownSplit, (samples) =>
    samples.filter(({ patient }) => !heldOut.has(patient)),
  )
  return new LoadedDataset({
    kind: 'chexpert',
    root,
    findings: CHEXPERT_FINDINGS,
    classes,
    problems,
    notes,
    ...selection,
  })
}

export async function openFiveWay(spec: SpecOf<'chexpert-5x200'>): Promise<LoadedDataset> {
  const root = chexpertRoot(spec.root)
  const problems = new Problems()
  const { style } = spec.captions
  const classes = withPrompts(chestPrompts(FIVE_FINDINGS, style), spec.prompts)
  const candidates = await fiveWayCandidates(findTable(root, [spec.table ?? 'train.csv']), style, problems)
  problems.check(candidates.length + problems.count, spec.maxProblems)
  const samples =
    spec.table === undefined ? chooseClasses(candidates, classes, spec.perClass, spec.seed, FIVE_WAY) : candidates
  const patients = [...new Set(samples.map(({ patient }) => patient))].sort()
  const split = { name: 'test', hash: makeManifest(spec.kind, { test: patients }).hash }
  return new LoadedDataset({
    kind: spec.kind,
    root,
    findings: CHEXPERT_FINDINGS,
    classes,
    problems,
    samples,
    split,
    weights: null,
  })
}
