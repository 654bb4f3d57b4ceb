import { join } from 'node:path'
import { isClassifierFolder, loadClassifier } from '../clip/classifier-files.js'
import { contextLength, wordsAfterContext } from '../clip/context.js'
import { checkDistinct } from '../clip/distinct-texts.js'
import { type ImageInput, loadModel, readModelFiles, TOKENIZER } from '../clip/model-files.js'
import type { TextTower, TokenSequences } from '../clip/text-tower.js'
import type { ClassPrompt } from '../data/index.js'
import { type Logger, TextTokenizer } from '../models/index.js'
import * as torch from '../torch/index.js'
import { Loaded, type Prediction, predictionOf } from './loaded.js'
import { LoadedClassifier } from './loaded-classifier.js'
import { type ImageSource, withPixels } from './read-images.js'

type Tensor = torch.Tensor

export interface LoadOptions {
  /** Default: 'cpu'. */
  device?: torch.Device
  /** Where the frozen language model is, where it is no longer at the place that the checkpoint names. */
  textFolder?: string
  /** Default: the console. */
  logger?: Logger
}

/** How several prompts of a class count: their mean embedding, or the mean or the largest of their scores. */
export type Ensemble = 'mean-embedding' | 'mean-logit' | 'max-logit'

/** A trained model that is ready to be asked. */
export class LoadedModel extends Loaded<TextTower> {
  /** @internal Use {@link load}. */
  constructor(
    folder: string,
    model: TextTower,
    readonly tokenizer: TextTokenizer,
    input: ImageInput,
    device: torch.Device,
  ) {
    super(folder, model, input, device)
  }

  /**
   * Embeddings of images, of length 1: [N, D], the caller's.
   *
   * @throws ImageError for a file that cannot be read
   */
  async encodeImage(images: ImageSource | readonly ImageSource[]): Promise<Tensor> {
    return (await this.encodeWithWarnings(images)).embeddings
  }

  /** Vectors that the model has learned to put before a text, in place of a template; 0 where it has none. */
  get contextLength(): number {
    return contextLength(this.model)
  }

  /**
   * Embeddings of texts, of length 1: [N, D], the caller's. A model with a learned context reads them without the template
   * 'this is a chest x ray of a patient with', for which the context stands.
   */
  async encodeText(texts: string | readonly string[]): Promise<Tensor> {
    const given = typeof texts === 'string' ? [texts] : texts
    if (given.length === 0) throw new RangeError('encodeText: expected one text at least, but received none')
    return this.encodeTokens(await this.tokensOf(given))
  }

  /** A text as the model reads it: after a learned context without the template. */
  wordsOf(text: string): string {
    return this.contextLength > 0 ? wordsAfterContext(text) : text
  }

  /** The same for people. */
  shownText(text: string): string {
    const { contextLength } = this
    return contextLength > 0 ? `[${contextLength} learned vectors]${wordsAfterContext(text)}` : text
  }

  /**
   * Embeddings of classes' prompts, to be asked for many images: `using` them, or disposing of them, frees them.
   *
   * @param prompts a text for each class; or classes with a name and one or more prompts
   * @throws RangeError where two classes have the same name, or texts that the model cannot tell apart
   */
  async encodePrompts(prompts: readonly (string | ClassPrompt)[]): Promise<EncodedPrompts> {
    const { names, tokens, rows } = await this.promptTokens(prompts)
    return new EncodedPrompts(names, this.encodeTokens(tokens), rows)
  }

  /** Throws what {@link encodePrompts} would, without its work. */
  async checkPrompts(prompts: readonly (string | ClassPrompt)[]): Promise<void> {
    await this.promptTokens(prompts)
  }

  private async promptTokens(prompts: readonly (string | ClassPrompt)[]) {
    const classes = prompts.map((each) => (typeof each === 'string' ? { name: each, prompts: [each] } : each))
    const names = classes.map(({ name }) => name)
    if (names.length < 2 || new Set(names).size < names.length) {
      throw new RangeError(
        `predict: expected two or more different prompts, but received ${names.join(', ') || 'none'}`,
      )
    }
    const texts = [...new Set(classes.flatMap((each) => each.prompts))]
    const tokens = await this.tokensOf(texts)
    const rowOf = new Map(texts.map((text, row) => [text, row]))
    const rows = classes.map((each) => each.prompts.map((text) => rowOf.get(text)!))
    checkDistinct(
      rows.map((own, k) => ({ name: names[k]!, tokens: own.map((row) => tokens[row]!) })),
      this.model.encoding.maximumLength,
    )
    return { names, tokens, rows }
  }

  private async tokensOf(texts: readonly string[]): Promise<TokenSequences> {
    const { maximumLength } = this.model.encoding
    return await this.tokenizer.encode(
      texts.map((text) => this.wordsOf(text)),
      { maximumLength },
    )
  }

  private encodeTokens(tokens: TokenSequences): Tensor {
    return torch.scope(() => torch.noGrad(() => this.model.encodeText(tokens)))
  }

  /** Embeddings of pixels [N, 3, size, size]: [N, D], the scope's or the caller's. */
  encodePixels(pixels: Tensor): Tensor {
    return torch.scope(() => torch.noGrad(() => this.model.encodeImage(pixels)))
  }

  /**
   * Which of the prompts fits an image best; for several images a list.
   *
   * @param prompts a text for each class; or classes with a name and one or more prompts; or what {@link encodePrompts}
   *   made of either
   * @example await model.predict('chest.dcm', ['edema', 'no finding'])
   */
  async predict(image: ImageSource, prompts: Prompts, options?: { ensemble?: Ensemble }): Promise<Prediction>
  async predict(
    images: readonly ImageSource[],
    prompts: Prompts,
    options?: { ensemble?: Ensemble },
  ): Promise<Prediction[]>
  async predict(
    images: ImageSource | readonly ImageSource[],
    prompts: Prompts,
    { ensemble = 'mean-embedding' }: { ensemble?: Ensemble } = {},
  ): Promise<Prediction | Prediction[]> {
    if (!(prompts instanceof EncodedPrompts)) {
      using encoded = await this.encodePrompts(prompts)
      return await this.predict(images as ImageSource, encoded, { ensemble })
    }
    const { embeddings, warnings } = await this.encodeWithWarnings(images)
    using _ = embeddings
    const logits = torch.scope(() => scoresOf(this, embeddings, prompts, ensemble).toTypedArray() as Float32Array)
    const { names } = prompts
    const C = names.length
    const made = warnings.map((own, row) =>
      predictionOf(names, [...logits.subarray(row * C, (row + 1) * C)], 'single', own),
    )
    return Array.isArray(images) ? made : made[0]!
  }

  private async encodeWithWarnings(images: ImageSource | readonly ImageSource[]) {
    const { result: embeddings, warnings } = await withPixels(images, this, (pixels) => this.encodePixels(pixels))
    return { embeddings, warnings }
  }
}

export type Prompts = readonly (string | ClassPrompt)[] | EncodedPrompts

/** Embeddings of the distinct prompts of all classes, and for each class the rows that are its own. */
export class EncodedPrompts implements Disposable {
  /** @internal Use `encodePrompts` of a model. */
  constructor(
    /** Of the classes. */
    readonly names: readonly string[],
    /** [T, D] */
    readonly text: Tensor,
    readonly rows: readonly (readonly number[])[],
  ) {}

  [Symbol.dispose](): void {
    this.text.dispose()
  }
}

/**
 * cosine x exp(logScale) of images and classes, without gradient for the text's side: [N, classes], the scope's.
 *
 * @param image [N, D]
 */
export function scoresOf(
  { model }: LoadedModel,
  image: Tensor,
  { text, rows }: EncodedPrompts,
  ensemble: Ensemble,
): Tensor {
  const scale = model.logit_scale.detach().float().exp()
  const pick = (own: readonly number[]) =>
    text.indexSelect(0, torch.tensor(own, { dtype: 'int64', device: text.device as torch.Device }))
  if (ensemble === 'mean-embedding') {
    const means = torch.stack(rows.map((own) => torch.nn.functional.normalize(pick(own).mean(0), { dim: 0 })))
    return image.matmul(means.t()).mul(scale)
  }
  const columns = rows.map((own) => {
    const scores = image.matmul(pick(own).t())
    return ensemble === 'mean-logit' ? scores.mean(1) : scores.amax(1)
  })
  return torch.stack(columns, 1).mul(scale)
}

/**
 * Opens a checkpoint, or a model folder that `cleft convert` wrote. Of a linear probe or fine-tuning it gives a
 * {@link LoadedClassifier}, which has classes of its own and needs no prompts.
 *
 * @example const model = await load(run.checkpoint); await model.predict('chest.dcm', ['edema', 'no finding'])
 * @example const classifier = await load<LoadedClassifier>(probe.checkpoint); await classifier.predict('chest.dcm')
 */
export async function load<Loaded extends LoadedModel | LoadedClassifier = LoadedModel>(
  checkpoint: string,
  options: LoadOptions = {},
): Promise<Loaded> {
  const isClassifier = isClassifierFolder(checkpoint)
  return (await (isClassifier ? openClassifier(checkpoint, options) : openModel(checkpoint, options))) as Loaded
}

async function openClassifier(checkpoint: string, { device = 'cpu', logger }: LoadOptions): Promise<LoadedClassifier> {
  const { model, input, stage } = await loadClassifier(checkpoint, { device, logger })
  return new LoadedClassifier(checkpoint, model, stage, input, device)
}

async function openModel(checkpoint: string, options: LoadOptions): Promise<LoadedModel> {
  const { device = 'cpu', textFolder, logger } = options
  const model = await loadModel(checkpoint, { device, textFolder, logger })
  const { padToken } = model.encoding
  const tokenizer = TextTokenizer.open(join(checkpoint, TOKENIZER), padToken === undefined ? {} : { padToken })
  const { input } = readModelFiles(checkpoint)
  return new LoadedModel(checkpoint, model, tokenizer, input!, device)
}
