import { copyFileSync, existsSync, mkdirSync, statSync } from 'node:fs'
import { extname, join } from 'node:path'
import {
  CONFIG_NAME,
  configText,
  dinov2HubLayout,
  dinov2Renames,
  exactJson,
  invertTable,
  type JsonObject,
  jsonText,
  openWeights,
  renameSource,
  type WeightSource,
  writeJson,
} from '../models/index.js'
import { AdaptedModel, fileKey, parseAdapterKey, readAdapterFiles, saveAdapter } from '../peft/index.js'
import * as torch from '../torch/index.js'
import { fingerprint, isModelFolder, loadModel, saveModel } from './model-files.js'
import { isPublished, loadPublished, type PublishedOptions, splitPublished } from './published.js'
import type { TextTower } from './text-tower.js'

/*
 * From one layout of files to another. What is read: checkpoints of the published CLEFT code, folders and files as
 * transformers and DINOv2's hub have them, adapters of peft, old and new, and model folders of ours.
 */

export const layouts = ['cleft', 'transformers', 'hub', 'peft'] as const
export type Layout = (typeof layouts)[number]

export interface ConvertOptions
  extends Pick<PublishedOptions, 'image' | 'text' | 'alpha' | 'maximumLength' | 'logger'> {
  /**
   * 'cleft': our model folder. 'transformers': config.json and model.safetensors; of a whole CLEFT model, a folder for each
   * part. 'hub': DINOv2's own names. 'peft': adapters alone. Default: 'cleft' for CLEFT models, 'peft' for adapters,
   * else 'transformers'.
   */
  to?: Layout
  /** What floating-point tensors become. Default: as they are. */
  dtype?: torch.DType
}

export interface Converted {
  from: 'published' | 'cleft' | 'adapter' | 'weights'
  to: Layout
  /** What was written, below `out` or `out` itself. */
  files: string[]
}

/**
 * Converts a file or folder of weights. Nothing is written where what is there does not fit; each file is written beside
 * its place and renamed.
 *
 * @param out a folder, or, for weights alone, a file that ends in .safetensors, .pt, .bin or .pth
 */
export async function convert(input: string, out: string, options: ConvertOptions = {}): Promise<Converted> {
  if (!existsSync(input)) throw new RangeError(`convert: expected a file or a folder, but '${input}' does not exist`)
  if (statSync(input).isDirectory()) {
    if (isModelFolder(input)) {
      const model = await loadModel(input, { logger: options.logger, dtype: 'auto' })
      const { image, text } = exactJson(configText(input)) as { image: Tower; text: Tower }
      const configs = { imageConfig: jsonText(image.config), textConfig: jsonText(text.config) }
      return writeParts('cleft', { model, ...configs }, null, out, options)
    }
    if (existsSync(join(input, 'adapter_config.json'))) return convertAdapter(input, out, options)
  }
  const source = await openWeights(input)
  try {
    if (!isPublished(source.names)) return convertWeights(input, source, out, options)
    const found = await loadPublished(input, options)
    return writeParts('published', found, splitPublished(source).text, out, options)
  } finally {
    source.close?.()
  }
}

interface Tower {
  config: JsonObject
}

interface Whole {
  model: TextTower
  imageConfig: string
  textConfig: string
}

function refuse(from: string, to: Layout, possible: readonly Layout[]): never {
  throw new RangeError(
    `convert: expected ${possible.map((each) => `'${each}'`).join(' or ')} for ${from}, but received '${to}'`,
  )
}

type State = Iterable<readonly [string, torch.Tensor]>

const TENSORS = 'model.safetensors'

/** @param text the frozen language model under transformers' names, where the input holds it */
async function writeParts(
  from: 'published' | 'cleft',
  whole: Whole,
  text: WeightSource | null,
  out: string,
  { to = 'cleft', dtype }: ConvertOptions,
): Promise<Converted> {
  const { model, imageConfig, textConfig } = whole
  if (to === 'hub') return refuse('a whole CLEFT model', to, ['cleft', 'transformers', 'peft'])
  if (to === 'cleft' && text === null) return refuse('a model folder of ours', to, ['transformers', 'peft'])
  const files: string[] = []
  if (to !== 'peft') {
    if (text !== null) files.push(...writeFolder(join(out, 'text'), textConfig, tensorsOf(text), dtype))
    if (to === 'cleft') {
      const written = await openWeights(join(out, 'text'))
      const textWeights = { name: 'text', fingerprint: fingerprint(written) }
      written.close?.()
      saveModel(out, model, { imageConfig, textConfig, textWeights })
      return { from, to, files: [...files, join(out, CONFIG_NAME), join(out, 'trainable.safetensors')] }
    }
    files.push(...writeFolder(join(out, 'image'), imageConfig, model.image.stateDict(), dtype))
    const own = [...model.stateDict()].filter(([name]) => !/^(image|text)\./.test(name))
    files.push(writeFile(join(out, 'projections.safetensors'), own, dtype))
  }
  const names = model.text instanceof AdaptedModel ? [...model.text.adapters.keys()] : []
  for (const name of names) {
    const place = join(out, name === 'default' ? 'adapter' : `adapter-${name}`)
    saveAdapter(model.text!, place, { name })
    files.push(place)
  }
  if (files.length === 0) throw new RangeError("convert: expected a model with adapters for 'peft', but it has none")
  return { from, to, files }
}

/** What belongs to a model beside its weights. */
const companions = [
  'tokenizer.json',
  'tokenizer_config.json',
  'special_tokens_map.json',
  'vocab.json',
  'merges.txt',
  'vocab.txt',
  'generation_config.json',
  'preprocessor_config.json',
]

function convertWeights(
  input: string,
  source: WeightSource,
  out: string,
  { to = 'transformers', dtype, image, text }: ConvertOptions,
): Converted {
  if (to !== 'transformers' && to !== 'hub') return refuse('weights of one model', to, ['transformers', 'hub'])
  const isFolder = statSync(input).isDirectory()
  const config = configOf(isFolder ? input : null, image ?? text)
  const isDinov2 = source.names.some((name) =>
    /(^|\.)(blocks\.\d+\.(\d+\.)?ls1\.gamma|layer_scale1\.lambda1)$/.test(name),
  )
  if (to === 'hub' && !isDinov2) {
    throw new RangeError(`convert: expected DINOv2's tensors for 'hub', but '${input}' has others; use 'transformers'`)
  }
  // other models have one layout: their names stay
  const named = isDinov2 ? renameSource(source, dinov2Renames(source.names)) : source
  const view = to === 'hub' ? renameSource(named, [invertTable(dinov2HubLayout)]) : named
  if (extname(out) !== '') {
    return { from: 'weights', to, files: [torch.scope(() => writeFile(out, tensorsOf(view), dtype))] }
  }
  const files = torch.scope(() => writeFolder(out, config, tensorsOf(view), dtype))
  for (const name of isFolder ? companions : []) {
    if (!existsSync(join(input, name))) continue
    copyFileSync(join(input, name), join(out, name))
    files.push(join(out, name))
  }
  return { from: 'weights', to, files }
}

/** The text of config.json as it was given, else that of the input's folder, else none. */
function configOf(folder: string | null, given: string | JsonObject | undefined): string | null {
  if (given !== undefined) return configText(given)
  return folder !== null && existsSync(join(folder, CONFIG_NAME)) ? configText(folder) : null
}

/** An adapter's tensors under the names that peft writes today. */
async function convertAdapter(input: string, out: string, { to = 'peft', dtype }: ConvertOptions): Promise<Converted> {
  if (to !== 'peft') return refuse('an adapter', to, ['peft'])
  const { json, tensors } = await readAdapterFiles(input)
  try {
    const renamed = new Map<string, torch.Tensor>()
    for (const [key, tensor] of tensors) {
      const parts = parseAdapterKey(key)
      const isVirtual = /(^|\.)(prompt_embeddings|embedding\.weight)$/.test(key)
      if (parts === null && !isVirtual) {
        throw new RangeError(`convert: expected tensors of an adapter in '${input}', but ${key} is none`)
      }
      const name = parts === null ? 'prompt_embeddings' : fileKey('', `${parts.path}.${parts.part}`)
      if (renamed.has(name)) throw new RangeError(`convert: expected each tensor once, but ${name} is there twice`)
      renamed.set(name, tensor)
    }
    mkdirSync(out, { recursive: true })
    const file = writeFile(join(out, 'adapter_model.safetensors'), renamed, dtype)
    writeJson(join(out, 'adapter_config.json'), json)
    return { from: 'adapter', to, files: [file, join(out, 'adapter_config.json')] }
  } finally {
    torch.dispose(tensors)
  }
}

function* tensorsOf(source: WeightSource): State {
  for (const name of source.names) yield [name, source.tensor(name)]
}

function writeFolder(folder: string, config: string | null, state: State, dtype?: torch.DType): string[] {
  mkdirSync(folder, { recursive: true })
  const files = [writeFile(join(folder, TENSORS), state, dtype)]
  if (config === null) return files
  const path = join(folder, CONFIG_NAME)
  const exact = exactJson(config)
  writeJson(path, dtype === undefined ? exact : { ...exact, dtype })
  return [...files, path]
}

function writeFile(path: string, state: State, dtype?: torch.DType): string {
  const endings = ['.safetensors', '.pt', '.pth', '.bin']
  if (!endings.includes(extname(path))) {
    throw new RangeError(
      `convert: expected a folder, or a file that ends in ${endings.join(', ')}, but received '${path}'`,
    )
  }
  torch.scope(() => {
    const whole = new Map<string, torch.Tensor>()
    for (const [name, tensor] of state) {
      const isCast = dtype !== undefined && tensor.isFloatingPoint() && tensor.dtype !== dtype
      whole.set(name, isCast ? torch.noGrad(() => tensor.to(dtype)) : tensor)
    }
    if (extname(path) === '.safetensors') torch.saveSafetensors(whole, path)
    else torch.save(whole, path)
  })
  return path
}
