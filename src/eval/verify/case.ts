import { existsSync, readFileSync } from 'node:fs'
import { basename, join } from 'node:path'
import * as torch from '../../torch/index.js'

/** A reference case: a folder with case.json, io.safetensors, and where needed model/ and adapter/. */
export interface ReferenceCase {
  readonly name: string
  readonly kind: string
  readonly folder: string
  readonly rtol: number
  readonly atol: number
  /** Everything in case.json. */
  readonly settings: Readonly<Record<string, unknown>>
  /** Names of the tensors that begin so, without it. */
  names(prefix: 'in.' | 'out.' | 'grad.'): string[]
  has(name: string): boolean
  tensor(name: string): torch.Tensor
  /** A file or folder of the case. */
  path(name: string): string
}

/** @throws where the folder has no case that can be read */
export function openCase(folder: string): ReferenceCase {
  const file = join(folder, 'case.json')
  if (!existsSync(file)) throw new Error(`expected a case with a file '${file}', but there is none`)
  const settings: unknown = JSON.parse(readFileSync(file, 'utf8'))
  if (typeof settings !== 'object' || settings === null || Array.isArray(settings)) {
    throw new TypeError(`expected '${file}' to be an object, but it is not`)
  }
  const { name = basename(folder), kind, rtol = 0, atol = 0 } = settings as Record<string, unknown>
  if (typeof kind !== 'string' || typeof name !== 'string' || typeof rtol !== 'number' || typeof atol !== 'number') {
    throw new TypeError(`expected '${file}' to say name, kind, rtol and atol, but it does not`)
  }
  const data = join(folder, 'io.safetensors')
  const tensors = existsSync(data) ? torch.openSafetensors(data) : null
  return {
    name,
    kind,
    folder,
    rtol,
    atol,
    settings: settings as Record<string, unknown>,
    names: (prefix) =>
      (tensors?.names ?? []).filter((each) => each.startsWith(prefix)).map((each) => each.slice(prefix.length)),
    has: (each) => tensors?.names.includes(each) ?? false,
    tensor(each) {
      if (tensors === null) throw new Error(`expected a file '${data}', but there is none`)
      return tensors.tensor(each)
    },
    path: (each) => join(folder, each),
  }
}
