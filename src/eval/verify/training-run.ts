import { TextTower } from '../../clip/text-tower.js'
import { imageEncoderFromPretrained } from '../../models/image/index.js'
import type { Execution } from '../../models/text/index.js'
import * as torch from '../../torch/index.js'
import type { ReferenceCase } from './case.js'
import type { Comparison } from './comparison.js'
import { openTextModel, paddingOf, ragged } from './encoders.js'

const executions: readonly Execution[] = ['padded', 'packed', 'tree']

/** A list of numbers in case.json. */
function numbersOf(reference: ReferenceCase, name: string): number[] {
  const value = reference.settings[name]
  if (Array.isArray(value) && value.every((each) => typeof each === 'number')) return value as number[]
  throw new TypeError(`expected case.json to have a list of numbers '${name}', but it has not`)
}

function numberOf(reference: ReferenceCase, name: string): number {
  const value = reference.settings[name]
  if (typeof value === 'number') return value
  throw new TypeError(`expected case.json to have a number '${name}', but it has not`)
}

const projections = { image_proj: 'image_projection', text_proj: 'text_projection' } as const

/** Image encoder, language model with adapter, projections and temperature as the run began. */
async function startOf(reference: ReferenceCase): Promise<TextTower> {
  const model = new TextTower({
    image: await imageEncoderFromPretrained(reference.path('image')),
    text: await openTextModel(reference, 'text'),
    embeddingWidth: reference.tensor('in.image_proj.bias').size(0),
    padToken: paddingOf(reference.tensor('in.caption_ids'), reference.tensor('in.caption_mask')),
    maximumLength: reference.tensor('in.caption_ids').size(1),
  })
  torch.noGrad(() => {
    for (const [theirs, ours] of Object.entries(projections)) {
      for (const [part, parameter] of model[ours].namedParameters()) {
        parameter.copy_(reference.tensor(`in.${theirs}.${part}`))
      }
    }
    model.logit_scale.copy_(reference.tensor('in.log_scale'))
  })
  return model.train()
}

/** The steps of a whole run, with each execution of the text encoder: losses, temperatures, and where it ends. */
export async function verifyTrainingRun(reference: ReferenceCase, comparison: Comparison): Promise<void> {
  const captions = ragged(reference.tensor('in.caption_ids'), reference.tensor('in.caption_mask'))
  const which = reference.tensor('in.caption').toArray() as number[][]
  const rates = numbersOf(reference, 'learning_rates')
  const [beta1 = 0.9, beta2 = 0.999] = numbersOf(reference, 'betas')
  const weightDecay = numberOf(reference, 'weight_decay')
  const options = { lr: rates[0]!, betas: [beta1, beta2] as [number, number], eps: numberOf(reference, 'eps') }
  for (const execution of executions) {
    const model = await startOf(reference)
    model.encoding.execution = execution
    using optimizer = new torch.optim.AdamW(torch.optim.decayGroups(model.parameters(), { weightDecay }), options)
    const found = rates.map((rate, step) =>
      torch.scope(() => {
        const chosen = which[step]!.map(Number)
        // one channel, which the encoder gets three times
        const pixels = reference.tensor('in.images').select(0, step).unsqueeze(1).expand(-1, 3, -1, -1)
        for (const group of optimizer.paramGroups) group.lr = rate
        optimizer.zeroGrad()
        const texts = chosen.map((caption) => captions[caption]!)
        const { loss } = model.forward(pixels, texts, { targets: 'same-caption', captions: chosen })
        loss.backward()
        optimizer.step()
        model.clampLogScale()
        return { loss: loss.item(), logScale: model.logit_scale.item() }
      }),
    )
    torch.scope(() => {
      const column = (name: 'loss' | 'logScale') =>
        torch.tensor(
          found.map((each) => each[name]),
          { dtype: 'float64' },
        )
      comparison.output(`${execution}: loss`, column('loss'), reference.tensor('out.loss'))
      comparison.output(`${execution}: log scale`, column('logScale'), reference.tensor('out.log_scale'))
      for (const [theirs, ours] of Object.entries(projections)) {
        for (const [part, parameter] of model[ours].namedParameters()) {
          comparison.output(
            `${execution}: ${theirs}.${part}`,
            parameter,
            reference.tensor(`out.final.${theirs}.${part}`),
          )
        }
      }
    })
    model.dispose()
  }
}
