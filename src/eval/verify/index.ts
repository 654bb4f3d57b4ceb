/*
 * Replays what Python's libraries computed, and says how far off we are.
 */
import { openCase, type ReferenceCase } from './case.js'
import { Comparison, type Errors } from './comparison.js'
import { verifyContrastiveLoss, verifyContrastiveStep } from './contrastive.js'
import { verifyImageEncoder, verifyTextEncoder } from './encoders.js'
import { verifyMetrics, verifyOptimizer, verifyTokenizer } from './others.js'
import { verifyTrainingRun } from './training-run.js'

export interface Verification {
  case: string
  pass: boolean
  outputs: Errors
  gradients: Errors
  seconds: number
  /** What is not as expected, in words; empty where it passes. */
  problems: readonly string[]
}

type Verify = (reference: ReferenceCase, comparison: Comparison) => void | Promise<void>

const kinds: ReadonlyMap<string, Verify> = new Map<string, Verify>([
  ['text-encoder', verifyTextEncoder],
  ['image-encoder', verifyImageEncoder],
  ['contrastive-step', verifyContrastiveStep],
  ['contrastive-loss', verifyContrastiveLoss],
  ['optimizer', verifyOptimizer],
  ['metrics', verifyMetrics],
  ['tokenizer', verifyTokenizer],
  ['training-run', verifyTrainingRun],
])

/**
 * Replays one case: a folder with case.json (its `kind` says what it is) and what belongs to it.
 *
 * @throws where it cannot be read, or is of a kind that is not known
 */
export async function verifyCase(folder: string): Promise<Verification> {
  const started = performance.now()
  const reference = openCase(folder)
  const verify = kinds.get(reference.kind)
  if (verify === undefined) {
    throw new RangeError(
      `expected a case of kind ${[...kinds.keys()].join(', ')}, but '${folder}' is of kind '${reference.kind}'`,
    )
  }
  const comparison = new Comparison(reference.rtol, reference.atol)
  await verify(reference, comparison)
  if (comparison.count === 0) comparison.problems.push('nothing was compared')
  return {
    case: reference.name,
    pass: comparison.problems.length === 0,
    outputs: comparison.outputs,
    gradients: comparison.gradients,
    seconds: (performance.now() - started) / 1000,
    problems: comparison.problems,
  }
}
