import type { Classifier, ClassifierStage } from '../clip/classifier.js'
import type { ImageInput } from '../clip/model-files.js'
import * as torch from '../torch/index.js'
import { Loaded, type Prediction, predictionOf } from './loaded.js'
import { type ImageSource, withPixels } from './read-images.js'

/** A linear probe or a fine-tuned encoder that is ready to be asked. */
export class LoadedClassifier extends Loaded<Classifier> {
  /** @internal Use `load`. */
  constructor(
    folder: string,
    model: Classifier,
    /** How it was trained. */
    readonly stage: ClassifierStage,
    input: ImageInput,
    device: torch.Device,
  ) {
    super(folder, model, input, device)
  }

  /** Names of the classes, or of the findings. */
  get classes(): readonly string[] {
    return this.model.classes
  }

  /**
   * Of pixels [N, 3, size, size]: features [N, D] and logits [N, C], float32; the scope's or the caller's.
   */
  classifyPixels(pixels: torch.Tensor): { features: torch.Tensor; logits: torch.Tensor } {
    return torch.scope(() =>
      torch.noGrad(() => {
        const features = this.model.feature(pixels).float()
        return { features, logits: this.model.classify(features) }
      }),
    )
  }

  /**
   * Which of its classes an image is of; for several images a list.
   *
   * @example await classifier.predict('chest.dcm')
   * @throws ImageError for a file that cannot be read
   */
  async predict(image: ImageSource): Promise<Prediction>
  async predict(images: readonly ImageSource[]): Promise<Prediction[]>
  async predict(
    images: ImageSource | readonly ImageSource[],
    ...prompts: readonly unknown[]
  ): Promise<Prediction | Prediction[]> {
    if (prompts.some((each) => each !== undefined)) {
      throw new RangeError(
        `predict: expected no prompts, since '${this.folder}' is a classifier of ${this.classes.join(', ')}; leave them out`,
      )
    }
    const { result: logits, warnings } = await withPixels(
      images,
      this,
      (pixels) => this.classifyPixels(pixels).logits.toTypedArray() as Float32Array,
    )
    const C = this.classes.length
    const made = warnings.map((own, row) =>
      predictionOf(this.classes, [...logits.subarray(row * C, (row + 1) * C)], this.model.task, own),
    )
    return Array.isArray(images) ? made : made[0]!
  }
}
