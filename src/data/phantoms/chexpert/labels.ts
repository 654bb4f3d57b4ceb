import type { Random } from '../../random.js'
import { BLANK, NEGATIVE, POSITIVE, UNCERTAIN } from '../../sample.js'
import { cholesky, tetrachoric, thresholdOf } from '../normal.js'
import {
  BOTH_POSITIVE,
  DEVICES_WITHOUT_PATHOLOGY,
  FINDINGS,
  NO_FINDING,
  ROWS,
  WITHOUT_PATHOLOGY,
} from './statistics.js'

/** Findings in the order of the real table's columns. */
export const FINDING_NAMES = ['No Finding', ...FINDINGS.map(({ name }) => name)] as const

/** A study's label of each of {@link FINDING_NAMES}: 1, 0, -1, or BLANK. */
export type Labels = Int8Array

/** How much of a study's labels are its patient's, and not its own: 0 to 1. */
const SHARED = 0.5

/**
 * Studies with nothing to see are more than the correlations of pairs explain (12.7 % of the table, of which they give
 * 7.9 %): so many are drawn as such, and the correlated findings in the others only.
 */
const CLEAR = 0.094

/** The one finding that a study without pathology may have. */
const DEVICES = FINDINGS.findIndex(({ name }) => name === 'Support Devices')

/** The five findings of CheXpert's competition, as CheXpert-5x200 has them. */
export const FIVE_WAY = ['Atelectasis', 'Cardiomegaly', 'Consolidation', 'Edema', 'Pleural Effusion'] as const

interface Copula {
  /** Above: positive. */
  readonly positive: readonly number[]
  /** From here to `positive`: uncertain. */
  readonly uncertain: readonly number[]
  /** Above, in a variable of its own: a study without pathology. */
  readonly clear: number
  readonly lower: readonly (readonly number[])[]
}

let copula: Copula | undefined

/**
 * Correlated normal variables, one a finding, whose thresholds give the table's prevalences and whose correlations give its
 * counts of pairs. What is uncertain lies next below what is positive.
 */
function labelCopula(): Copula {
  if (copula !== undefined) return copula
  const rows = (1 - CLEAR) * ROWS
  const elsewhere = (index: number, inClear: number) =>
    index === DEVICES ? (CLEAR * ROWS * inClear) / WITHOUT_PATHOLOGY : 0
  const positive = FINDINGS.map((finding, index) =>
    thresholdOf((finding.positive - elsewhere(index, DEVICES_WITHOUT_PATHOLOGY.positive)) / rows),
  )
  const uncertain = FINDINGS.map((finding, index) =>
    thresholdOf((finding.positive + finding.uncertain - elsewhere(index, DEVICES_WITHOUT_PATHOLOGY.stated)) / rows),
  )
  const correlation: number[][] = FINDINGS.map((_, i) => FINDINGS.map((_, j) => Number(i === j)))
  for (const [i, pairs] of BOTH_POSITIVE.entries()) {
    for (const [j, together] of pairs.entries()) {
      const value = tetrachoric(positive[i]!, positive[j]!, together / rows)
      correlation[i]![j] = value
      correlation[j]![i] = value
    }
  }
  copula = { positive, uncertain, clear: thresholdOf(CLEAR), lower: cholesky(correlation) }
  return copula
}

/** What all studies of a patient have in common: how likely each finding is, and, last, whether there is any. */
export function patientTendency(random: Random): number[] {
  return [...FINDINGS, null].map(() => random.normal())
}

/**
 * The labels of one study: each finding's prevalence, and how often each two are positive together, as in the real table.
 *
 * @param tendency of the patient; null for a study of its own
 */
export function sampleLabels(random: Random, tendency: readonly number[] | null = null): Labels {
  const { positive, uncertain, lower, clear } = labelCopula()
  const shared = tendency === null ? 0 : SHARED
  const independent = [...FINDINGS, null].map(
    (_, index) => Math.sqrt(1 - shared) * random.normal() + Math.sqrt(shared) * (tendency?.[index] ?? 0),
  )
  const isClear = independent[FINDINGS.length]! > clear
  const values = lower.map((row, index) => {
    if (isClear)
      return index === DEVICES && random.chance(DEVICES_WITHOUT_PATHOLOGY.positive / WITHOUT_PATHOLOGY)
        ? POSITIVE
        : BLANK
    const latent = row.reduce((sum, weight, column) => sum + weight * independent[column]!, 0)
    if (latent > positive[index]!) return POSITIVE
    return latent > uncertain[index]! ? UNCERTAIN : BLANK
  })
  return complete(random, values)
}

/** Exactly one finding is positive, and the others are negative or blank, as CheXpert-5x200 asks of an image. */
export function sampleSingle(random: Random, name: string): Labels {
  return complete(
    random,
    FINDINGS.map((finding) => (finding.name === name ? POSITIVE : BLANK)),
  )
}

/** Says No Finding where there is nothing, and what the report denies. */
function complete(random: Random, values: readonly number[]): Labels {
  const clear = values.every((value, index) => value === BLANK || index === DEVICES)
  const labels = new Int8Array(FINDING_NAMES.length).fill(BLANK)
  if (clear && random.chance(NO_FINDING / WITHOUT_PATHOLOGY)) labels[0] = POSITIVE
  for (const [index, value] of values.entries()) {
    labels[1 + index] = value === BLANK && random.chance(denial(index, clear)) ? NEGATIVE : value
  }
  return labels
}

/** How often a finding that is neither positive nor uncertain is denied: so that the count over all rows comes out. */
function denial(index: number, clear: boolean): number {
  const { positive, uncertain, negative, negativeWithoutPathology } = FINDINGS[index]!
  const statedWhenClear = index === DEVICES ? DEVICES_WITHOUT_PATHOLOGY.stated : 0
  return clear
    ? negativeWithoutPathology / (WITHOUT_PATHOLOGY - statedWhenClear)
    : (negative - negativeWithoutPathology) / (ROWS - WITHOUT_PATHOLOGY - (positive + uncertain - statedWhenClear))
}
