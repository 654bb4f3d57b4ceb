import { existsSync, readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { parse as parseExact, stringify as stringifyExact } from 'lossless-json'
import { writeWhole } from '../setup/files.js'
import { quote } from '../torch/files/error.js'

/** Where warnings go. */
export interface Logger {
  warn(message: string): void
}

export const consoleLogger: Logger = {
  warn: (message) => {
    console.warn(message)
  },
}

const warned = new WeakMap<Logger, Set<string>>()

/** Says the same thing to the same logger once. */
export function warnOnce(logger: Logger, message: string): void {
  const before = warned.get(logger) ?? new Set()
  if (before.has(message)) return
  warned.set(logger, before.add(message))
  logger.warn(message)
}

/** A model's config.json. */
export type JsonObject = Readonly<Record<string, unknown>>

export const CONFIG_NAME = 'config.json'
const MAX_CONFIG_BYTES = 16 << 20

/** Reads a JSON object from a file. */
export function readJsonObject(path: string): JsonObject {
  if (!existsSync(path)) throw new Error(`expected a file '${path}', but there is none`)
  if (statSync(path).size > MAX_CONFIG_BYTES) {
    throw new RangeError(`expected '${path}' to have ${MAX_CONFIG_BYTES} bytes at most, but it is larger`)
  }
  let value: unknown
  try {
    value = JSON.parse(readFileSync(path, 'utf8'))
  } catch {
    throw new SyntaxError(`expected JSON in '${path}', but it cannot be read as such; get the file again`)
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw new TypeError(`expected a JSON object in '${path}', but it is something else`)
  }
  return value as JsonObject
}

/**
 * JSON whose numbers are written again as they were read: 1.0 stays 1.0. transformers 5 refuses a config.json that has 1
 * where its own has 1.0. To be written, not to be computed with.
 */
export function exactJson(text: string): JsonObject {
  return parseExact(text) as JsonObject
}

/** The text of JSON, also of what {@link exactJson} gave. */
export function jsonText(value: unknown): string {
  return stringifyExact(value, undefined, 2) ?? 'null'
}

/** Writes JSON to a file beside, then renames it: a crash leaves what was there. */
export function writeJson(path: string, value: unknown): void {
  writeWhole(path, `${jsonText(value)}\n`)
}

/** Reads the config.json of a folder. */
export function readConfig(folder: string): JsonObject {
  return readJsonObject(join(folder, CONFIG_NAME))
}

/** What transformers writes into every config.json, and what concerns training, generation and heads that are not built. */
const passedOver: ReadonlySet<string> = new Set(
  `_name_or_path _attn_implementation_autoset _attn_implementation _commit_hash architectures model_type
  transformers_version torch_dtype dtype use_cache output_attentions output_hidden_states return_dict torchscript
  use_bfloat16 pruned_heads is_decoder is_encoder_decoder add_cross_attention cross_attention_hidden_size
  tie_encoder_decoder chunk_size_feed_forward id2label label2id num_labels problem_type finetuning_task
  initializer_range initializer_factor gradient_checkpointing bos_token_id eos_token_id pad_token_id sep_token_id
  decoder_start_token_id unk_token_id cls_token_id max_length min_length do_sample early_stopping num_beams
  num_beam_groups diversity_penalty temperature top_k top_p typical_p repetition_penalty length_penalty
  no_repeat_ngram_size encoder_no_repeat_ngram_size bad_words_ids num_return_sequences output_scores
  return_dict_in_generate forced_bos_token_id forced_eos_token_id remove_invalid_values
  exponential_decay_length_penalty suppress_tokens begin_suppress_tokens task_specific_params prefix tokenizer_class
  auto_map language tf_legacy_loss name licence repository`.split(/\s+/),
)

/**
 * Reads the options of a config.json one by one, with their published defaults. Options that a model does not know are
 * warned about once, at finish(); those that it knows and has not built are refused by only().
 */
export class Config {
  private readonly read = new Set<string>()

  constructor(
    readonly values: JsonObject,
    readonly logger: Logger = consoleLogger,
    /** For messages. */
    readonly path = CONFIG_NAME,
  ) {}

  get modelType(): string {
    return this.string('model_type')
  }

  has(name: string): boolean {
    return this.values[name] !== undefined && this.values[name] !== null
  }

  private take<T>(name: string, wanted: string, fits: (value: unknown) => value is T, fallback: T | undefined): T {
    this.read.add(name)
    const value = this.values[name]
    if (value === undefined || value === null) {
      if (fallback !== undefined) return fallback
      throw new TypeError(`${this.path}: expected '${name}' to be ${wanted}, but it is missing; add it`)
    }
    if (fits(value)) return value
    const shown = quote(JSON.stringify(value) ?? String(value))
    throw new TypeError(`${this.path}: expected '${name}' to be ${wanted}, but it is ${shown}; correct it`)
  }

  string(name: string, fallback?: string): string {
    return this.take(name, 'a text', (value) => typeof value === 'string', fallback)
  }

  boolean(name: string, fallback?: boolean): boolean {
    return this.take(name, 'true or false', (value) => typeof value === 'boolean', fallback)
  }

  number(name: string, fallback?: number): number {
    return this.take(name, 'a number', (value): value is number => Number.isFinite(value), fallback)
  }

  /** From 0 to below 1. */
  probability(name: string, fallback?: number): number {
    const fits = (value: unknown): value is number => typeof value === 'number' && value >= 0 && value < 1
    return this.take(name, 'a probability below 1', fits, fallback)
  }

  /** A whole number above 0: sizes and counts. */
  count(name: string, fallback?: number): number {
    return this.take(name, 'a whole number above 0', isCount, fallback)
  }

  counts(name: string, fallback?: readonly number[]): readonly number[] {
    const fits = (value: unknown): value is readonly number[] => Array.isArray(value) && value.every(isCount)
    return this.take(name, 'a list of whole numbers above 0', fits, fallback)
  }

  /** Height and width: two numbers, or one for both. */
  size(name: string, fallback?: number): readonly [number, number] {
    const fits = (value: unknown): value is number | readonly [number, number] =>
      isCount(value) || (Array.isArray(value) && value.length === 2 && value.every(isCount))
    const value = this.take<number | readonly [number, number]>(name, 'one or two whole numbers', fits, fallback)
    return typeof value === 'number' ? [value, value] : value
  }

  /** An object inside, as a config of its own. */
  part(name: string): Config {
    const fits = (value: unknown): value is JsonObject =>
      typeof value === 'object' && value !== null && !Array.isArray(value)
    return new Config(this.take(name, 'an object', fits, undefined), this.logger, `${this.path} ${name}`)
  }

  /** Refuses every value but those that are built; the first is the default. */
  only<T extends string | number | boolean | null>(name: string, supported: readonly [T, ...T[]]): T {
    this.read.add(name)
    const value = this.values[name]
    if (value === undefined || value === null) return supported[0]
    if ((supported as readonly unknown[]).includes(value)) return value as T
    throw new RangeError(
      `${this.path}: expected '${name}' to be ${supported.map((each) => JSON.stringify(each)).join(' or ')}, but it is ${quote(JSON.stringify(value))}, which is not supported`,
    )
  }

  /** Options that change nothing here. */
  ignore(...names: readonly string[]): void {
    for (const name of names) this.read.add(name)
  }

  /** Warns of options that nobody asked for. */
  finish(): void {
    const unknown = Object.keys(this.values).filter((name) => !this.read.has(name) && !passedOver.has(name))
    if (unknown.length === 0) return
    const type = typeof this.values.model_type === 'string' ? this.values.model_type : 'this model'
    warnOnce(
      this.logger,
      `${this.path}: options that ${quote(type)} does not know are ignored: ${unknown.map(quote).join(', ')}`,
    )
  }
}

function isCount(value: unknown): value is number {
  return typeof value === 'number' && Number.isSafeInteger(value) && value > 0
}
