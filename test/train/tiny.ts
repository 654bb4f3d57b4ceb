import { copyFileSync, mkdirSync, mkdtempSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { type DatasetSpec, openDataset } from '../../src/data/index.js'
import { writePhantoms } from '../../src/data/phantoms/index.js'
import { buildModel } from '../../src/models/index.js'
import * as torch from '../../src/torch/index.js'
import type { PretrainOptions } from '../../src/train/options/index.js'

export const image = {
  model_type: 'dinov2_with_registers',
  hidden_size: 32,
  num_hidden_layers: 2,
  num_attention_heads: 2,
  patch_size: 14,
  image_size: 56,
  num_register_tokens: 2,
  mlp_ratio: 4,
}
const text = {
  model_type: 'gpt2',
  n_embd: 32,
  n_layer: 2,
  n_head: 2,
  n_positions: 64,
  vocab_size: 330,
  eos_token_id: 0,
}

export interface Tiny {
  folder: string
  /** Of CheXpert phantoms. */
  data: { kind: 'chexpert'; root: string; holdout: null }
  /** A folder with a GPT-2 and its tokenizer. */
  language: string
}

/**
 * Phantoms of some patients and a language model of random weights, in a folder of their own.
 *
 * @param positions of the language model, whose tokenizer knows few words: captions of mammograms need a few hundred
 */
export async function tiny(patients = 40, seed = 1, positions = 64): Promise<Tiny> {
  const folder = mkdtempSync(join(tmpdir(), 'cleft-train-'))
  await writePhantoms({ kind: 'chexpert', out: join(folder, 'data'), patients, seed })
  const language = join(folder, 'language')
  mkdirSync(language)
  torch.manualSeed(11)
  const config = { ...text, n_positions: positions }
  const model = await buildModel(config)
  torch.saveSafetensors(model.stateDict(), join(language, 'model.safetensors'))
  model.dispose()
  writeFileSync(join(language, 'config.json'), JSON.stringify(config))
  const tokenizer = fileURLToPath(new URL('../reference/tokenizer/gpt2.tokenizer.json', import.meta.url))
  copyFileSync(tokenizer, join(language, 'tokenizer.json'))
  const root = join(folder, 'data', 'CheXpert-v1.0-small')
  return { folder, data: { kind: 'chexpert', root, holdout: null }, language }
}

/** A run of a few steps on them. */
export function tinyRun({ folder, data, language }: Tiny, name: string): PretrainOptions {
  return {
    stage: 'pretrain',
    data,
    image: { model: image },
    text: { model: language },
    imageSize: 56,
    batchSize: 8,
    microBatch: 4,
    steps: 6,
    embeddingWidth: 16,
    optimizer: { lr: 1e-3 },
    logEvery: 1,
    checkpointEvery: 2,
    seed: 5,
    workers: 1,
    out: join(folder, name),
  }
}

/** Phantoms as pairs whose captions are all different: the data of a run. */
export async function distinctPairs({ data }: Tiny, count: number) {
  const { samples } = await openDataset({ ...data, split: 'train' } as DatasetSpec)
  const byCaption = new Map(samples.map(({ caption, path }) => [caption!, path]))
  if (byCaption.size < count) throw new Error(`expected ${count} distinct captions, but there are ${byCaption.size}`)
  const lines = [...byCaption].slice(0, count).map(([caption, path]) => `${path},${caption}`)
  writeFileSync(join(data.root, `pairs-${count}.csv`), ['path,text', ...lines, ''].join('\n'))
  const columns = { path: 'path', text: 'text' }
  return { kind: 'table', root: data.root, table: `pairs-${count}.csv`, split: 'all', columns } as const
}
