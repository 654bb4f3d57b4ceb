import { existsSync } from 'node:fs'
import { imageEncoderFromPretrained } from '../../models/image/index.js'
import { loadTextModel } from '../../models/text/load.js'
import { type AdaptedTextModel, loadAdapter, type TextEncoder, type TextOutput } from '../../peft/index.js'
import * as torch from '../../torch/index.js'
import type { ReferenceCase } from './case.js'
import type { Comparison } from './comparison.js'
import { compareGradients } from './parameters.js'

type Tensor = torch.Tensor

/** A text model with the case's adapter on it, where there is one. */
export async function openTextModel(
  reference: ReferenceCase,
  folder = 'model',
): Promise<TextEncoder | AdaptedTextModel> {
  const model = await loadTextModel(reference.path(folder), { trainable: true })
  if (!existsSync(reference.path('adapter'))) return model.eval()
  const adapted = await loadAdapter(model, reference.path('adapter'), { trainable: true })
  return adapted.eval()
}

/** The ids of each row without padding. */
export function ragged(ids: Tensor, mask: Tensor): number[][] {
  const [rows, width] = ids.shape as [number, number]
  const [all, seen] = [ids.toTypedArray(), mask.toTypedArray()]
  return Array.from({ length: rows }, (_, row) => {
    const own: number[] = []
    for (let k = row * width; k < (row + 1) * width; k += 1) if (Number(seen[k]) === 1) own.push(Number(all[k]))
    return own
  })
}

/** The id that rows are padded with, at whose first place a feature may be taken. 0 where no row is padded. */
export function paddingOf(ids: Tensor, mask: Tensor): number {
  return torch.scope(() => {
    const found = new Set(Array.from(ids.maskedSelect(mask.eq(0)).toTypedArray(), Number))
    if (found.size <= 1) return [...found][0] ?? 0
    throw new RangeError(`expected rows that are padded with one token, but there are ${[...found].join(', ')}`)
  })
}

/** What a text model gives: hidden states without padding's, the last real token's, the first padding's. */
function textOutputs({ lastHidden, pooled }: TextOutput, mask: Tensor): Map<string, Tensor> {
  const [, length = 0] = mask.shape
  const [, total = 0, width = 0] = lastHidden.shape
  // prompt tuning puts virtual tokens in front
  const extra = total - length
  const lengths = mask.sum(1)
  const at = (rows: Tensor, positions: Tensor) =>
    lastHidden
      .indexSelect(0, rows)
      .gather(1, positions.add(extra).view(-1, 1, 1).expand([-1, 1, width]))
      .squeeze(1)
  const all = torch.arange(mask.size(0))
  const padded = lengths.lt(length).nonzero().view(-1)
  const seen = torch.cat([torch.ones([mask.size(0), extra], { dtype: mask.dtype }), mask], 1)
  const outputs = new Map([
    ['hidden', lastHidden.mul(seen.unsqueeze(-1))],
    ['last_token', at(all, lengths.sub(1))],
    ['first_pad', at(padded, lengths.indexSelect(0, padded))],
  ])
  if (pooled !== null) outputs.set('pooled', pooled)
  return outputs
}

/** The loss that a case names: sum(x * linspace(-1, 1, numel)) of one of the outputs. */
function caseLoss(reference: ReferenceCase, outputs: ReadonlyMap<string, Tensor>): Tensor {
  const text = String(reference.settings.loss)
  const match = /^sum\((mean\()?out\.(\w+)(\[:, 0\])?(, dim=1\))? \* linspace/.exec(text)
  const output = match === null ? undefined : outputs.get(match[2]!)
  if (match === null || output === undefined) {
    throw new Error(`expected a loss like 'sum(out.last_token * linspace(...))', but case.json says '${text}'`)
  }
  let value = output
  if (match[1] !== undefined) value = value.mean(1)
  if (match[3] !== undefined) value = value.select(1, 0)
  return value.mul(torch.linspace(-1, 1, value.numel()).view(value.shape)).sum()
}

function compareOutputs(
  comparison: Comparison,
  reference: ReferenceCase,
  model: torch.nn.Module,
  outputs: ReadonlyMap<string, Tensor>,
): void {
  for (const name of reference.names('out.')) {
    const found = outputs.get(name)
    if (found === undefined) comparison.problems.push(`${name}: the model gives no such output`)
    else comparison.output(name, found, reference.tensor(`out.${name}`))
  }
  if (reference.names('grad.').length === 0) return
  caseLoss(reference, outputs).backward()
  compareGradients(comparison, reference, model)
}

export async function verifyTextEncoder(reference: ReferenceCase, comparison: Comparison): Promise<void> {
  const model = await openTextModel(reference)
  torch.scope(() => {
    const attentionMask = reference.tensor('in.attention_mask')
    const output = model.forward({ inputIds: reference.tensor('in.input_ids'), attentionMask })
    compareOutputs(comparison, reference, model, textOutputs(output, attentionMask))
  })
  model.dispose()
}

export async function verifyImageEncoder(reference: ReferenceCase, comparison: Comparison): Promise<void> {
  const model = await imageEncoderFromPretrained(reference.path('model'))
  torch.scope(() => {
    const features = model.forward(reference.tensor('in.pixel_values'))
    const outputs = new Map([
      ['hidden', features.hidden],
      ['pooled', features.pooled],
    ])
    if (reference.has('out.prenorm')) outputs.set('prenorm', features.prenorm.all)
    if (reference.has('out.cls') && features.normed.cls !== null) outputs.set('cls', features.normed.cls)
    compareOutputs(comparison, reference, model, outputs)
  })
  model.dispose()
}
