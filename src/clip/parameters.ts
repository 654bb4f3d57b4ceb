import { ImageEncoder } from '../models/image/index.js'
import { buildModel, type TextEncoder } from '../models/index.js'
import { type AdapterConfig, addAdapter, trainableParameters } from '../peft/index.js'
import * as torch from '../torch/index.js'
import { makeProjection, type ProjectionOptions } from './projection.js'

const { nn } = torch

/*
 * How many parameters a model of two towers has, and how many of them train: counted on 'meta', without memory.
 */

export type Tower = 'image' | 'image-projection' | 'text' | 'text-projection'

export interface ParameterRow {
  /** Of the whole: 'cleft (lora)', 'clip-bert (12 layers)'. */
  model: string
  tower: Tower
  /** On the text model: 'lora', 'ia3', 'prefix', 'adalora', or 'none'. */
  adapter: string
  /** Parameters, adapters included. */
  total: number
  trainable: number
  /** Of all parameters, in the dtype that was asked for. */
  bytes: number
}

/** What the paper says (Du et al., MICCAI 2024, abstract and section 3), beside what was counted. */
export interface Claim {
  claim: string
  paper: number
  /** Null where the rows do not have what it takes. */
  found: number | null
}

export interface ParameterTable {
  rows: ParameterRow[]
  claims: Claim[]
}

export const adapterKinds = ['lora', 'ia3', 'prefix', 'adalora', 'none'] as const
export type AdapterKind = (typeof adapterKinds)[number]

/** The published settings of each adapter (method: BioMedLM with peft's defaults but for these). */
export function publishedAdapter(kind: AdapterKind): AdapterConfig | null {
  if (kind === 'lora') return { kind, r: 8, alpha: 32, dropout: 0.1 }
  if (kind === 'ia3') return { kind }
  if (kind === 'prefix') return { kind, numVirtualTokens: 20 }
  if (kind === 'adalora') {
    return { kind, targetR: 8, initR: 12, tinit: 500, tfinal: 1500, totalStep: 40_000, alpha: 8, dropout: 0 }
  }
  return null
}

interface Text {
  name: string
  adapter: AdapterKind
  /** Trained as a whole. */
  isTrained: boolean
  layers?: number
}

interface Whole {
  model: string
  image: string
  text: Text
  projection?: ProjectionOptions
}

const embeddingWidth = 512

async function rowsOf({ model, image, text, projection }: Whole, dtype: torch.DType): Promise<ParameterRow[]> {
  const options = {
    device: 'meta' as const,
    dtype,
    text: { bert: { layers: text.layers } },
    logger: { warn: () => {} },
  }
  const imageModel = await buildModel(image, options)
  if (!(imageModel instanceof ImageEncoder)) {
    throw new TypeError(
      `params: expected '${image}' to be an image encoder, but it is a ${imageModel.constructor.name}`,
    )
  }
  const textModel = (await buildModel(text.name, options)) as unknown as TextEncoder
  if (textModel.wordEmbeddings === undefined) {
    throw new TypeError(
      `params: expected '${text.name}' to be a text encoder, but it is a ${textModel.constructor.name}`,
    )
  }
  const textWidth = textModel.width
  textModel.requiresGrad_(text.isTrained)
  const config = publishedAdapter(text.adapter)
  const adapted = config === null ? textModel : nn.onMeta(() => addAdapter(textModel, config))
  const towers: [Tower, torch.nn.Module][] = [
    ['image', imageModel],
    ['image-projection', nn.onMeta(() => makeProjection(imageModel.featureWidth, embeddingWidth, projection))],
    ['text', adapted],
    ['text-projection', nn.onMeta(() => makeProjection(textWidth, embeddingWidth, projection))],
  ]
  const rows = towers.map(([tower, module]) => {
    const { total, trainable } = trainableParameters(module)
    return { model, tower, adapter: text.adapter, total, trainable, bytes: total * torch.dtypeBytes[dtype] }
  })
  for (const [, module] of towers) module.dispose()
  return rows
}

export interface ParameterTableOptions {
  /** An image encoder's preset or folder. Default: 'dinov2_vitb14_reg'. */
  image?: string
  /** A text encoder's preset or folder. Default: 'biomedlm'. */
  text?: string
  /** Default: all of {@link adapterKinds} but 'none'. */
  adapters?: readonly AdapterKind[]
  /** Default: float32. */
  dtype?: torch.DType
}

/** CLEFT with each adapter, and the BERT baselines (Bio_ClinicalBERT of 12 and of 6 layers, trained as a whole). */
export async function parameterTable(options: ParameterTableOptions = {}): Promise<ParameterTable> {
  const { image = 'dinov2_vitb14_reg', text = 'biomedlm', dtype = 'float32' } = options
  const adapters = options.adapters ?? adapterKinds.filter((kind) => kind !== 'none')
  const wholes: Whole[] = [
    ...adapters.map((adapter) => ({
      model: `cleft (${adapter})`,
      image,
      text: { name: text, adapter, isTrained: false },
    })),
    ...[12, 6].map((layers) => ({
      model: `clip-bert (${layers} layers)`,
      image: 'deit_base_patch16_224',
      text: { name: 'bio_clinicalbert', adapter: 'none' as const, isTrained: true, layers },
    })),
  ]
  const rows: ParameterRow[] = []
  for (const whole of wholes) rows.push(...(await rowsOf(whole, dtype)))
  return { rows, claims: claimsOf(rows) }
}

function claimsOf(rows: readonly ParameterRow[]): Claim[] {
  const trainable = (model: string, tower?: Tower): number | null => {
    const own = rows.filter((row) => row.model === model && (tower === undefined || row.tower === tower))
    return own.length === 0 ? null : own.reduce((sum, row) => sum + row.trainable, 0)
  }
  const share = (a: number | null, b: number | null) => (a === null || b === null ? null : a / b)
  // the paper does not say how many of BERT's layers it means; the published code keeps 6
  return [12, 6].flatMap((layers) => {
    const baseline = `clip-bert (${layers} layers)`
    const whole = share(trainable('cleft (lora)'), trainable(baseline))
    const bert = `BERT of ${layers} layers`
    return [
      {
        claim: `trainable parameters in all, against CLIP with ${bert}: change`,
        paper: -0.39,
        found: whole === null ? null : whole - 1,
      },
      {
        claim: `trainable parameters of the language model, as a part of those of ${bert}`,
        paper: 0.04,
        found: share(trainable('cleft (lora)', 'text'), trainable(baseline, 'text')),
      },
    ]
  })
}
