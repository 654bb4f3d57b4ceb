import { contrastiveLoss, retrievalAccuracy } from '../clip/loss.js'
import type { TextTower } from '../clip/text-tower.js'
import type { DataLoader } from '../data/index.js'
import { batchNumber } from '../data/loader/order.js'
import * as torch from '../torch/index.js'
import type { CaptionTokens } from './caption-tokens.js'
import { inPrecision } from './precision.js'

const { Processes } = torch.distributed
type Processes = torch.distributed.Processes

export interface ValidationOptions {
  targets: 'identity' | 'same-caption'
  /** That of the training. Default: 'float32'. */
  precision?: 'float32' | 'bfloat16' | 'float16'
  pause: () => Promise<void>
  /** Each has a part of the batches. Default: this one. */
  processes?: Processes | undefined
}

/** Of one batch. */
interface Part {
  /** Which of all. */
  readonly number: number
  readonly images: number
  readonly values: { readonly loss: number; readonly accuracy1: number; readonly accuracy5: number }
}

/** How the model does on pairs that it does not learn from: means over batches of the training's size. */
export async function validate(
  model: TextTower,
  loader: DataLoader,
  tokens: Pick<CaptionTokens, 'encode'>,
  { targets, precision = 'float32', pause, processes = Processes.alone }: ValidationOptions,
): Promise<Record<string, number>> {
  const wasTraining = model.training
  model.eval()
  const own: Part[] = []
  try {
    for await (const batch of loader) {
      using _ = batch
      const captions = batch.captions.map((each) => each ?? '')
      const texts = await tokens.encode(captions)
      const values = torch.scope(() =>
        torch.noGrad(() => {
          const options = { targets, captions }
          const device = model.logit_scale.device as torch.Device
          const [image, text] = inPrecision(precision, device, () => [
            model.encodeImage(batch.pixels),
            model.encodeText(texts),
          ])
          const { loss, scores } = contrastiveLoss(image, text, model.logit_scale, options)
          const [accuracy1, accuracy5] = [1, 5].map((k) => retrievalAccuracy(scores, k, options)) as [number, number]
          return { loss: loss.item(), accuracy1, accuracy5 }
        }),
      )
      const number = batchNumber(batch.position, { rank: processes.rank, worldSize: processes.size })
      own.push({ number, images: captions.length, values })
      await pause()
    }
  } finally {
    model.train(wasTraining)
  }
  // in the order of one process, so that the sums are the same to the bit
  const parts = (await processes.gather(own)).flat().sort((a, b) => a.number - b.number)
  const images = parts.reduce((sum, part) => sum + part.images, 0)
  const mean = (name: keyof Part['values']) =>
    parts.reduce((sum, part) => sum + part.values[name] * part.images, 0) / images
  return { loss: mean('loss'), accuracy1: mean('accuracy1'), accuracy5: mean('accuracy5') }
}
