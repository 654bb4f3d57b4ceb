import { existsSync } from 'node:fs'
import { TextTokenizer } from '../../models/text/index.js'
import * as torch from '../../torch/index.js'
import { accuracy, argmaxRows, binaryAuc, confusionMatrix, macroAuc, macroF1 } from '../metrics.js'
import type { ReferenceCase } from './case.js'
import type { Comparison } from './comparison.js'

const { nn, optim } = torch

interface OptimizerSettings {
  lr: number
  betas: [number, number]
  eps: number | [number, number]
  weight_decay: number
  momentum: number
  dampening: number
  nesterov: boolean
  amsgrad: boolean
  maximize: boolean
  clip_threshold: number
  decay_rate: number
  beta1: number | null
  scale_parameter: boolean
  relative_step: boolean
  warmup_init: boolean
}

function makeOptimizer(name: string, parameters: torch.Tensor[], s: OptimizerSettings): { step(): unknown } {
  const { lr, weight_decay: weightDecay, maximize } = s
  if (name === 'sgd') {
    const { momentum, dampening, nesterov } = s
    return new optim.SGD(parameters, { lr, momentum, dampening, weightDecay, nesterov, maximize })
  }
  if (name === 'adamw' || name === 'adam') {
    const options = { lr, betas: s.betas, eps: s.eps as number, weightDecay, amsgrad: s.amsgrad, maximize }
    return name === 'adamw' ? new optim.AdamW(parameters, options) : new optim.Adam(parameters, options)
  }
  if (name === 'adafactor') {
    return new optim.Adafactor(parameters, {
      lr,
      eps: s.eps as [number, number],
      clipThreshold: s.clip_threshold,
      decayRate: s.decay_rate,
      beta1: s.beta1,
      weightDecay,
      scaleParameter: s.scale_parameter,
      relativeStep: s.relative_step,
      warmupInit: s.warmup_init,
    })
  }
  throw new Error(`expected the optimizer sgd, adam, adamw or adafactor, but case.json says '${name}'`)
}

/** The same gradients, step after step. */
export function verifyOptimizer(reference: ReferenceCase, comparison: Comparison): void {
  const names = reference.names('in.').filter((name) => !name.startsWith('grad_'))
  const parameters = names.map((name) => new nn.Parameter(reference.tensor(`in.${name}`).clone()))
  const optimizer = makeOptimizer(
    String(reference.settings.optimizer),
    parameters,
    reference.settings.settings as OptimizerSettings,
  )
  for (let step = 0; reference.has(`in.grad_${names[0]}.${step}`); step += 1) {
    for (const [index, name] of names.entries()) parameters[index]!.grad = reference.tensor(`in.grad_${name}.${step}`)
    optimizer.step()
    for (const [index, name] of names.entries()) {
      comparison.output(`${name}, step ${step}`, parameters[index]!, reference.tensor(`out.${name}.${step}`))
    }
  }
}

export function verifyMetrics(reference: ReferenceCase, comparison: Comparison): void {
  const numbers = (name: string) => Array.from(reference.tensor(name).toTypedArray(), Number)
  const labels = numbers('in.labels')
  const scores = numbers('in.scores')
  const classes = reference.tensor('in.scores').size(1)
  const predictions = argmaxRows(scores, classes)
  const found: Record<string, torch.Tensor | number> = {
    accuracy: accuracy(labels, predictions),
    auc_macro_ovr: macroAuc(labels, scores),
    f1_macro: macroF1(labels, predictions),
    confusion: torch.tensor(confusionMatrix(labels, predictions, classes), { dtype: 'float64' }),
    auc_binary: binaryAuc(numbers('in.binary_labels'), numbers('in.binary_scores')),
  }
  for (const name of reference.names('out.')) {
    const value = found[name]
    if (value === undefined) comparison.problems.push(`${name}: there is no such metric`)
    else comparison.output(name, value, reference.tensor(`out.${name}`))
  }
}

interface TokenizerCase {
  pad_token?: string
  input_ids: number[][]
  attention_mask?: number[][]
}

/** Token ids of texts: exactly, or not. */
export async function verifyTokenizer(reference: ReferenceCase, comparison: Comparison): Promise<void> {
  const { texts, max_length: maximumLength } = reference.settings as { texts: string[]; max_length?: number }
  for (const [name, value] of Object.entries(reference.settings)) {
    if (typeof value !== 'object' || value === null || !('input_ids' in value)) continue
    const expected = value as TokenizerCase
    const file = reference.path(`${name}.tokenizer.json`)
    const tokenizer = TextTokenizer.open(existsSync(file) ? file : reference.path(name), {
      padToken: expected.pad_token,
    })
    const padded = expected.attention_mask === undefined ? null : await tokenizer.encodePadded(texts, { maximumLength })
    const ids = padded?.inputIds ?? (await tokenizer.encode(texts))
    for (const [index, row] of expected.input_ids.entries()) {
      comparison.equal(`${name}: text ${index}`, ids[index]?.join() === row.join())
      if (padded !== null) {
        const mask = expected.attention_mask?.[index]
        comparison.equal(`${name}: mask ${index}`, padded.attentionMask[index]?.join() === mask?.join())
      }
    }
  }
}
