import { existsSync } from 'node:fs'
import { contrastiveLoss, retrievalAccuracy } from '../../clip/loss.js'
import { loadPublished } from '../../clip/published.js'
import { TextTower } from '../../clip/text-tower.js'
import { imageEncoderFromPretrained } from '../../models/image/index.js'
import type { Execution } from '../../models/text/index.js'
import * as torch from '../../torch/index.js'
import type { ReferenceCase } from './case.js'
import type { Comparison } from './comparison.js'
import { openTextModel, paddingOf, ragged } from './encoders.js'
import { compareGradients } from './parameters.js'

const executions: readonly Execution[] = ['padded', 'packed', 'tree']

/** A whole CLEFT step, with each execution of the text encoder; also from the published code's checkpoint where it is there. */
export async function verifyContrastiveStep(reference: ReferenceCase, comparison: Comparison): Promise<void> {
  const image = await imageEncoderFromPretrained(reference.path('image'))
  const text = await openTextModel(reference, 'text')
  const model = new TextTower({
    image,
    text,
    embeddingWidth: reference.tensor('in.image_proj.bias').size(0),
    padToken: paddingOf(reference.tensor('in.input_ids'), reference.tensor('in.attention_mask')),
    maximumLength: reference.tensor('in.input_ids').size(1),
  })
  torch.noGrad(() => {
    for (const part of ['weight', 'bias'] as const) {
      new Map(model.image_projection.namedParameters()).get(part)?.copy_(reference.tensor(`in.image_proj.${part}`))
      new Map(model.text_projection.namedParameters()).get(part)?.copy_(reference.tensor(`in.text_proj.${part}`))
    }
    model.logit_scale.copy_(reference.tensor('in.logit_scale'))
  })
  compareStep(model.eval(), reference, comparison, '')
  model.dispose()
  if (!existsSync(reference.path('official.ckpt'))) return
  const { model: published } = await loadPublished(reference.path('official.ckpt'), {
    image: reference.path('image'),
    text: reference.path('text'),
    trainable: true,
  })
  published.encoding.maximumLength = reference.tensor('in.input_ids').size(1)
  compareStep(published, reference, comparison, 'official.ckpt, ')
  published.dispose()
}

function compareStep(model: TextTower, reference: ReferenceCase, comparison: Comparison, prefix: string): void {
  const sequences = ragged(reference.tensor('in.input_ids'), reference.tensor('in.attention_mask'))
  for (const execution of executions) {
    const where = `${prefix}${execution}`
    model.encoding.execution = execution
    model.zeroGrad()
    torch.scope(() => {
      const found = model.forward(reference.tensor('in.pixel_values'), sequences)
      found.loss.backward()
      comparison.output(`${where}: loss`, found.loss, reference.tensor('out.loss'))
      comparison.output(`${where}: scores`, found.scores, reference.tensor('out.scores'))
      comparison.output(`${where}: image embedding`, found.imageEmbedding, reference.tensor('out.image_embedding'))
      comparison.output(`${where}: text embedding`, found.textEmbedding, reference.tensor('out.text_embedding'))
      compareGradients(comparison, reference, model.image, 'image.')
      compareGradients(comparison, reference, model.text!, 'text.')
      const own = new Map(model.namedParameters())
      const gradient = (ours: string, theirs: string) =>
        comparison.gradient(`${where}: ${theirs}`, own.get(ours)?.grad ?? null, reference.tensor(`grad.${theirs}`))
      gradient('image_projection.weight', 'image_proj.weight')
      gradient('text_projection.weight', 'text_proj.weight')
      gradient('logit_scale', 'logit_scale')
    })
  }
}

export function verifyContrastiveLoss(reference: ReferenceCase, comparison: Comparison): void {
  torch.scope(() => {
    const leaf = (name: string) => reference.tensor(`in.${name}`).clone().requiresGrad_()
    const inputs = { image: leaf('image'), text: leaf('text'), logit_scale: leaf('logit_scale') }
    const { loss, scores } = contrastiveLoss(inputs.image, inputs.text, inputs.logit_scale)
    loss.backward()
    comparison.output('loss', loss, reference.tensor('out.loss'))
    comparison.output('scores', scores, reference.tensor('out.scores'))
    for (const k of [1, 5]) comparison.output(`acc${k}`, retrievalAccuracy(scores, k), reference.tensor(`out.acc${k}`))
    for (const [name, input] of Object.entries(inputs)) {
      comparison.gradient(name, input.grad, reference.tensor(`grad.${name}`))
    }
  })
}
