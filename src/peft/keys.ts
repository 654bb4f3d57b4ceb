/*
 * Names of an adapter's tensors in files.
 */

/** A tensor's name taken apart. */
export interface AdapterKey {
  /** Path of the module as the file has it, without `base_model.model.`: 'transformer.h.0.attn.c_attn'. */
  path: string
  /** 'lora_A.weight', 'ia3_l', ... */
  part: string
}

const parts = 'lora_A|lora_B|lora_E|lora_magnitude_vector|ia3_l'
// path, part, an adapter's name perhaps, .weight perhaps
const pattern = new RegExp(`^(.+?)\\.(${parts})(?:\\.(?!weight$)[^.]+)?(\\.weight)?$`)

/**
 * Takes a name apart: with and without `base_model.model.` (once or twice), `.base_layer` and the adapter's name. Null
 * for what is no adapter's tensor.
 */
export function parseKey(key: string): AdapterKey | null {
  const found = pattern.exec(key)
  if (found === null) return null
  const [, before = '', part = '', weight = ''] = found
  const path = before.replace(/^(base_model\.)+(model\.(?=[^.]+\.))?/, '').replaceAll('.base_layer', '')
  // DoRA's magnitudes have .weight in memory, not in files
  return { path, part: part === 'lora_magnitude_vector' ? part : part + weight }
}

/** The name of a parameter in a file: 'base_model.model.transformer.h.0.attn.c_attn.lora_A.weight'. */
export function fileKey(headPrefix: string, name: string): string {
  return `base_model.model.${headPrefix}${name}`
}

/** The name in peft's memory, with the adapter's: 'lora_A.default.weight', 'ia3_l.default'. */
export function memoryKey(headPrefix: string, name: string, adapter: string): string {
  const named = fileKey(headPrefix, name)
  if (named.endsWith('.weight')) return named.replace(/\.weight$/, `.${adapter}.weight`)
  return named.endsWith('lora_magnitude_vector') ? `${named}.${adapter}.weight` : `${named}.${adapter}`
}

/**
 * What to take off the front of a file's paths (or put there), so that they are a model's: `transformer.`, `model.`,
 * or what else most of them have before a path of the model.
 */
export function alignPaths(paths: readonly string[], own: ReadonlySet<string>): (path: string) => string {
  const votes = new Map<string, number>()
  for (const path of new Set(paths)) {
    const words = path.split('.')
    for (let skipped = 0; skipped < words.length; skipped += 1) {
      if (!own.has(words.slice(skipped).join('.'))) continue
      const prefix = words
        .slice(0, skipped)
        .map((word) => `${word}.`)
        .join('')
      votes.set(`-${prefix}`, (votes.get(`-${prefix}`) ?? 0) + 1)
      break
    }
    for (const each of own) {
      if (!each.endsWith(`.${path}`)) continue
      const prefix = each.slice(0, -path.length)
      votes.set(`+${prefix}`, (votes.get(`+${prefix}`) ?? 0) + 1)
    }
  }
  const best = [...votes].sort(([, a], [, b]) => b - a)[0]?.[0] ?? '-'
  const prefix = best.slice(1)
  if (best.startsWith('+')) return (path) => prefix + path
  return (path) => (path.startsWith(prefix) ? path.slice(prefix.length) : path)
}
