import { join } from 'node:path'
import { type ImageInput, TRAINABLE } from '../clip/model-files.js'
import { sha256OfFile } from '../setup/files.js'
import type * as torch from '../torch/index.js'

export interface Prediction {
  /** The class, or the finding, with the highest score. */
  readonly label: string
  /** In their order: softmax over the classes, or a sigmoid of each finding. */
  readonly probabilities: Readonly<Record<string, number>>
  /** What they are made of; with prompts cosine x exp(logScale). */
  readonly logits: Readonly<Record<string, number>>
  /** What a person should know of the image's file. */
  readonly warnings: readonly string[]
}

/** What every trained model has that is ready to be asked. */
export abstract class Loaded<Model extends torch.nn.Module = torch.nn.Module> implements Disposable {
  constructor(
    readonly folder: string,
    readonly model: Model,
    readonly input: ImageInput,
    readonly device: torch.Device,
  ) {}

  /** SHA-256 of what was trained: names the checkpoint in results. */
  hash(): Promise<string> {
    return sha256OfFile(join(this.folder, TRAINABLE))
  }

  dispose(): void {
    this.model.dispose()
  }

  [Symbol.dispose](): void {
    this.dispose()
  }
}

/** @param task 'single': one of the classes is right; 'multi': each may be */
export function predictionOf(
  names: readonly string[],
  scores: readonly number[],
  task: 'single' | 'multi',
  warnings: readonly string[],
): Prediction {
  const named = (values: readonly number[]) => Object.fromEntries(names.map((name, k) => [name, values[k]!]))
  const highest = Math.max(...scores)
  const powers = scores.map((score) => Math.exp(score - highest))
  const sum = powers.reduce((all, each) => all + each, 0)
  const probabilities =
    task === 'single' ? powers.map((each) => each / sum) : scores.map((score) => 1 / (1 + Math.exp(-score)))
  return {
    label: names[scores.indexOf(highest)]!,
    probabilities: named(probabilities),
    logits: named(scores),
    warnings,
  }
}
