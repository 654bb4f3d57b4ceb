import { contrastiveLoss, retrievalAccuracy } from '../clip/loss.js'
import type { TextTower } from '../clip/text-tower.js'
import type { DataLoader } from '../data/index.js'
import * as torch from '../torch/index.js'
import type { CaptionTokens } from './caption-tokens.js'

export interface ValidationOptions {
  targets: 'identity' | 'same-caption'
  maximumImages: number
  pause: () => Promise<void>
}

/** How the model does on pairs that it does not learn from: means over batches of the training's size. */
export async function validate(
  model: TextTower,
  loader: DataLoader,
  tokens: Pick<CaptionTokens, 'encode'>,
  { targets, maximumImages, pause }: ValidationOptions,
): Promise<Record<string, number>> {
  const wasTraining = model.training
  model.eval()
  const sums = { loss: 0, accuracy1: 0, accuracy5: 0 }
  let images = 0
  try {
    for await (const batch of loader) {
      using _ = batch
      const captions = batch.captions.map((each) => each ?? '')
      const texts = await tokens.encode(captions)
      torch.scope(() =>
        torch.noGrad(() => {
          const options = { targets, captions }
          const [image, text] = [model.encodeImage(batch.pixels), model.encodeText(texts)]
          const { loss, scores } = contrastiveLoss(image, text, model.logit_scale, options)
          sums.loss += loss.item() * captions.length
          sums.accuracy1 += retrievalAccuracy(scores, 1, options) * captions.length
          sums.accuracy5 += retrievalAccuracy(scores, 5, options) * captions.length
        }),
      )
      images += captions.length
      if (images >= maximumImages) break
      await pause()
    }
  } finally {
    model.train(wasTraining)
  }
  return Object.fromEntries(Object.entries(sums).map(([name, sum]) => [name, sum / images]))
}
