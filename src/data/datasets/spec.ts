import { z } from 'zod'
import { CHEST_STYLES, EMBED_STYLES, RSNA_STYLES } from '../captions/index.js'
import { SPLIT_NAMES } from '../split.js'

/*
 * What a user says of a data set. Everything that a data set holds depends on its spec, its tables and nothing else: nothing is cached
 * under a part of it.
 */

const seed = z.number().int().min(0)
const fraction = z.number().gt(0).max(1)
const parts = <Value extends z.ZodType>(value: Value) =>
  z.strictObject({ train: value.optional(), valid: value.optional(), test: value.optional() })

/** How patients are split. */
const splits = z.union([
  /** As the data set was published, where it was published with a split. */
  z.literal('official'),
  /** Drawn. `manifest`: kept in this file, written when it is not there, and read (and compared) when it is. */
  z.strictObject({ fractions: parts(fraction), seed: seed.default(0), manifest: z.string().optional() }),
  /** Read from a manifest. */
  z.strictObject({ manifest: z.string() }),
  /** Files with a patient, or an image's path or name, a line. */
  z.strictObject({ lists: parts(z.string()) }),
])
export type SplitsSpec = z.infer<typeof splits>

const common = {
  /** The folder as it was downloaded. */
  root: z.string().min(1),
  /** Which part. Default: 'train'; 'all' for every row. */
  split: z.enum([...SPLIT_NAMES, 'all']).default('train'),
  /** So many of each class, seeded: 200 of EMBED's seven for its 7x200. Those of a smaller number are among those of a larger. */
  perClass: z.number().int().positive().optional(),
  /** Of the images, seeded: those of a smaller fraction are among those of a larger. */
  fraction: fraction.default(1),
  /** Of perClass, fraction and what is drawn beside the split. */
  seed: seed.default(42),
  /** Repeats a fraction's images up to about the full number, as published for RSNA. */
  keepSize: z.boolean().default(false),
  /** Gives images weights inversely to the frequency of their class. */
  balance: z.boolean().default(false),
  /** The fraction of rows that may be unusable. */
  maxProblems: z.number().min(0).max(1).default(0.01),
  /** Own prompts by class, several for an ensemble. */
  prompts: z.record(z.string(), z.array(z.string()).min(1)).optional(),
}

const views = z.array(z.string()).min(1)
/** Which images are put aside for CheXpert-5x200, and so is every image of their patients. */
const holdout = z.strictObject({ perClass: z.number().int().positive().default(200), seed: seed.default(0) })

const chexpert = z.strictObject({
  kind: z.literal('chexpert'),
  ...common,
  /** Below root: another table in the same columns, as CheXbert's labels. Default: train.csv, valid.csv for official validation. */
  table: z.string().optional(),
  splits: splits.default('official'),
  views: views.nullable().default(['AP', 'PA']),
  captions: z.strictObject({ style: z.enum(CHEST_STYLES).default('plain') }).default({ style: 'plain' }),
  /** Which findings are the classes: the five of the competition, or all fourteen. */
  labels: z.enum(['five', 'all']).default('five'),
  /** In training, and in validation drawn from the same table. null: nobody is left out. */
  holdout: holdout.nullable().default({ perClass: 200, seed: 0 }),
})

const fiveWay = z.strictObject({
  kind: z.literal('chexpert-5x200'),
  root: common.root,
  /** Below root: an own list in CheXpert's columns, of which every row is taken. Default: drawn from train.csv. */
  table: z.string().optional(),
  captions: z.strictObject({ style: z.enum(CHEST_STYLES).default('plain') }).default({ style: 'plain' }),
  ...holdout.shape,
  maxProblems: common.maxProblems,
  prompts: common.prompts,
})

const rsna = z.strictObject({
  kind: z.literal('rsna'),
  ...common,
  /** Below root. Default: stage_2_train_labels.csv, also in gzip or zip. */
  table: z.string().optional(),
  splits: splits.default({ fractions: { train: 0.7, valid: 0.15, test: 0.15 }, seed: 0 }),
  /** As many images of each class in the test part. */
  balanceTest: z.boolean().default(true),
  captions: z.strictObject({ style: z.enum(RSNA_STYLES).default('plain') }).default({ style: 'plain' }),
})

const embed = z.strictObject({
  kind: z.literal('embed'),
  ...common,
  /** Below root. Default: every table in tables/, else in root. */
  tables: z.array(z.string()).optional(),
  splits: splits.default({ fractions: { train: 0.7, valid: 0.1, test: 0.2 }, seed: 0 }),
  captions: z.strictObject({ style: z.enum(EMBED_STYLES).default('default') }).default({ style: 'default' }),
  labels: z.enum(['birads', 'density']).default('birads'),
  views: views.nullable().default(null),
})

const nih = z.strictObject({
  kind: z.literal('nih'),
  ...common,
  /** Below root. Default: Data_Entry_2017_v2020.csv, else Data_Entry_2017.csv. */
  table: z.string().optional(),
  /** Official: train_val_list.txt and test_list.txt, of the first's patients a tenth for validation. */
  splits: splits.default('official'),
  captions: z.strictObject({ style: z.enum(['plain', 'prompt']).default('plain') }).default({ style: 'plain' }),
  views: views.nullable().default(null),
})

const drawn = splits.default({ fractions: { train: 0.8, valid: 0.1, test: 0.1 }, seed: 0 })
/** 'this is a chest x ray of a patient with {class}'. */
const template = z.string().includes('{class}')

const folder = z.strictObject({
  kind: z.literal('folder'),
  ...common,
  splits: drawn,
  /** Of captions and prompts; '{class}' is the folder's name in words. null: no captions. */
  captions: z
    .strictObject({ template })
    .nullable()
    .default({ template: 'this is a chest x ray of a patient with {class}' }),
  /** Whose image a file is: the first group of this regular expression in its path. Default: the public data sets' own names. */
  patientPattern: z.string().optional(),
})

const table = z.strictObject({
  kind: z.literal('table'),
  ...common,
  /** Below root. */
  table: z.string(),
  splits: drawn,
  columns: z.strictObject({
    path: z.string(),
    /** Captions. */
    text: z.string().optional(),
    /** The class, in words or numbers. */
    label: z.string().optional(),
    /** A column of 1, 0, -1 or nothing for each finding. */
    findings: z.array(z.string()).min(1).optional(),
    /** Default: by the path, as public data sets name theirs. */
    patient: z.string().optional(),
    view: z.string().optional(),
    sex: z.string().optional(),
    age: z.string().optional(),
  }),
  views: views.nullable().default(null),
  /** Put before every path. */
  prefix: z.string().default(''),
  captions: z.strictObject({ template }).nullable().default(null),
})

const webdataset = z.strictObject({
  kind: z.literal('webdataset'),
  ...common,
  /** Below root. Default: every .tar there, by name. */
  shards: z.array(z.string()).optional(),
  splits: drawn,
  /** In the .json of a sample. */
  keys: z
    .strictObject({
      text: z.string().default('caption'),
      label: z.string().default('label'),
      patient: z.string().default('patient'),
    })
    .default({ text: 'caption', label: 'label', patient: 'patient' }),
  captions: z.strictObject({ template }).nullable().default(null),
  patientPattern: z.string().optional(),
})

export const datasetSpec = z.discriminatedUnion('kind', [
  chexpert,
  fiveWay,
  rsna,
  embed,
  nih,
  folder,
  table,
  webdataset,
])

/** What a user writes: defaults may be left out. */
export type DatasetSpec = z.input<typeof datasetSpec>
/** With its defaults. */
export type FullSpec = z.output<typeof datasetSpec>
export type SpecOf<Kind extends FullSpec['kind']> = Extract<FullSpec, { kind: Kind }>
export const DATASET_KINDS = datasetSpec.options.map((option) => option.shape.kind.value)

/** @throws Error that names what is wrong in the spec */
export function parseSpec(spec: DatasetSpec): FullSpec {
  const parsed = datasetSpec.safeParse(spec)
  if (parsed.success) return parsed.data
  throw new Error(
    `expected the description of a data set, but ${z.prettifyError(parsed.error).replaceAll(/\s*\n\s*/g, ' ')}`,
  )
}
