import { join } from 'node:path'
import type { Classifier, ClassifierStage } from '../clip/classifier.js'
import { type ImageInput, TRAINABLE } from '../clip/model-files.js'
import { sha256OfFile } from '../setup/files.js'
import * as torch from '../torch/index.js'
import { type ImageSource, withPixels } from './read-images.js'

export interface ClassPrediction {
  /** The class, or the finding, with the highest score. */
  readonly label: string
  /** Softmax over the classes, or a sigmoid of each finding, in their order. */
  readonly probabilities: Readonly<Record<string, number>>
  /** What they are made of. */
  readonly logits: Readonly<Record<string, number>>
  /** What a person should know of the image's file. */
  readonly warnings: readonly string[]
}

/** A linear probe or a fine-tuned encoder that is ready to be asked. */
export class LoadedClassifier implements Disposable {
  /** @internal Use `load`. */
  constructor(
    readonly folder: string,
    readonly model: Classifier,
    /** How it was trained. */
    readonly stage: ClassifierStage,
    readonly input: ImageInput,
    readonly device: torch.Device,
  ) {}

  /** Names of the classes, or of the findings. */
  get classes(): readonly string[] {
    return this.model.classes
  }

  /** SHA-256 of its weights: names the checkpoint in results. */
  hash(): Promise<string> {
    return sha256OfFile(join(this.folder, TRAINABLE))
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
  async predict(image: ImageSource): Promise<ClassPrediction>
  async predict(images: readonly ImageSource[]): Promise<ClassPrediction[]>
  async predict(
    images: ImageSource | readonly ImageSource[],
    ...prompts: readonly unknown[]
  ): Promise<ClassPrediction | ClassPrediction[]> {
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
    const made = warnings.map((own, row) => this.predictionOf([...logits.subarray(row * C, (row + 1) * C)], own))
    return Array.isArray(images) ? made : made[0]!
  }

  private predictionOf(scores: readonly number[], warnings: readonly string[]): ClassPrediction {
    const named = (values: readonly number[]) =>
      Object.fromEntries(this.classes.map((name, k) => [name, values[k]!] as const))
    const highest = Math.max(...scores)
    const powers = scores.map((score) => Math.exp(score - highest))
    const sum = powers.reduce((all, each) => all + each, 0)
    return {
      label: this.classes[scores.indexOf(highest)]!,
      probabilities: named(
        this.model.task === 'single'
          ? powers.map((each) => each / sum)
          : scores.map((score) => 1 / (1 + Math.exp(-score))),
      ),
      logits: named(scores),
      warnings,
    }
  }

  dispose(): void {
    this.model.dispose()
  }

  [Symbol.dispose](): void {
    this.dispose()
  }
}
