import { existsSync, readFileSync, statSync } from 'node:fs'
import { readdir } from 'node:fs/promises'
import { basename, dirname, extname, join } from 'node:path'
import { quote } from '../torch/files/error.js'
import { USUAL_WRAPPERS } from '../torch/files/index.js'
import * as torch from '../torch/index.js'
import { describeMismatch } from './mismatch.js'
import { fitsTemplate, planRenames, type Recipe, type RenameTable, shapeOfRecipe } from './renames.js'

type Tensor = torch.Tensor

/** Tensors by name, wherever they come from. */
export interface WeightSource {
  readonly names: readonly string[]
  has(name: string): boolean
  /** A tensor that belongs to the caller (to the scope around). */
  tensor(name: string): Tensor
  /** The tensor's shape, where that costs less than the tensor. */
  shape?(name: string): readonly number[]
  /** Whether nobody writes to its tensors, so that pages mapped from a file may be let go of after use. Default: false. */
  readonly isOwn?: boolean
  /** Where they come from, for messages. */
  readonly path?: string
  /** Lets go of files. Tensors stay. */
  close?(): void
}

/** Weights that do not fit a module: all that is wrong, at once. Nothing was loaded. */
export class WeightsMismatchError extends Error {
  override readonly name = 'WeightsMismatchError'

  /** @internal */
  constructor(
    message: string,
    readonly missing: readonly string[],
    readonly unexpected: readonly string[],
    /** A sentence for each tensor of another shape. */
    readonly misshapen: readonly string[],
  ) {
    super(message)
  }
}

/** How many elements are cast at once. */
const PIECE = 1 << 22

const singleNames = ['model.safetensors', 'model.safetensors.index.json', 'pytorch_model.bin'] as const
const binIndexName = 'pytorch_model.bin.index.json'
const pickleEndings = ['.bin', '.pt', '.pth', '.ckpt']

/**
 * Opens the weights of a folder (model.safetensors, its shards, pytorch_model.bin, its shards, or the one file of weights
 * that is there) or of a file. Safetensors are mapped into memory: nothing is read before a tensor is used.
 */
export async function openWeights(path: string): Promise<WeightSource> {
  if (!existsSync(path)) {
    throw new torch.WeightsFileError(path, `expected a folder or a file of weights, but '${path}' does not exist`)
  }
  if (!statSync(path).isDirectory()) return openFile(path)
  for (const name of [...singleNames, binIndexName]) {
    if (existsSync(join(path, name))) return openFile(join(path, name))
  }
  const files = (await readdir(path)).filter((name) => ['.safetensors', ...pickleEndings].includes(extname(name)))
  // what trainers leave beside the model
  const candidates = files.filter((name) => !/^(optimizer|scheduler|training_args|rng_state|adapter_model)/.test(name))
  if (candidates.length === 1) return openFile(join(path, candidates[0]!))
  const found = candidates.length === 0 ? 'it has none' : `it has ${candidates.map(quote).join(', ')}: give one of them`
  throw new torch.WeightsFileError(
    path,
    `expected '${path}' to hold one file of weights (${singleNames.join(', ')}), but ${found}`,
  )
}

async function openFile(path: string): Promise<WeightSource> {
  if (basename(path).endsWith('.bin.index.json')) return openBinShards(path)
  if (path.endsWith('.json')) return fromFile(torch.openSharded(path))
  if (path.endsWith('.safetensors')) return fromFile(torch.openSafetensors(path))
  return { ...fromTensors(await readPickle(path), path), isOwn: true }
}

function fromFile(file: ReturnType<typeof torch.openSafetensors> | ReturnType<typeof torch.openSharded>): WeightSource {
  return {
    path: file.path,
    names: file.names,
    has: (name) => file.has(name),
    tensor: (name) => file.tensor(name),
    shape: (name) => file.info(name).shape,
    isOwn: true,
    close: () => file.close(),
  }
}

async function readPickle(path: string): Promise<Map<string, Tensor>> {
  const loaded = await torch.load(path)
  // 'state_dict' and its like are opened where a checkpoint has them at its top
  const wrapper = loaded instanceof Map ? USUAL_WRAPPERS.find((key) => isContainer(loaded.get(key))) : undefined
  return torch.toStateDict(loaded, wrapper === undefined ? {} : { key: wrapper })
}

function isContainer(value: unknown): boolean {
  return value instanceof Map || value instanceof torch.PickleStub
}

async function openBinShards(path: string): Promise<WeightSource> {
  const index: unknown = JSON.parse(readFileSync(path, 'utf8'))
  const map = typeof index === 'object' && index !== null && 'weight_map' in index ? index.weight_map : undefined
  if (typeof map !== 'object' || map === null) {
    throw new torch.WeightsFileError(path, `expected '${path}' to have a weight_map, but it has none; get it again`)
  }
  const tensors = new Map<string, Tensor>()
  for (const shard of new Set(Object.values(map).map(String))) {
    if (basename(shard) !== shard) {
      throw new torch.WeightsFileError(path, `expected shards beside '${path}', but it names ${quote(shard)}`)
    }
    for (const [name, tensor] of await readPickle(join(dirname(path), shard))) tensors.set(name, tensor)
  }
  return { ...fromTensors(tensors, path), isOwn: true }
}

/** Tensors that are there already, as a source. It gives views of them, and frees them with close(). */
export function fromTensors(tensors: ReadonlyMap<string, Tensor>, path = 'the given tensors'): WeightSource {
  return {
    path,
    names: [...tensors.keys()],
    has: (name) => tensors.has(name),
    tensor: (name) => {
      const tensor = tensors.get(name)
      if (tensor === undefined) throw new RangeError(`expected a tensor ${quote(name)} in ${path}, but there is none`)
      return tensor.detach()
    },
    shape: (name) => tensors.get(name)?.shape ?? [],
    close: () => torch.dispose(tensors),
  }
}

/** A source under other names. Nothing is read before a tensor is asked for. */
export function renameSource(source: WeightSource, tables: readonly RenameTable[]): WeightSource {
  const { recipes, conflicts } = planRenames(source.names, tables)
  if (conflicts.length > 0) {
    throw new RangeError(`expected each name once after renaming, but there would be ${conflicts.join('; ')}`)
  }
  return sourceOf(source, recipes)
}

/** Some of a source's tensors under other names, by new name: part of a checkpoint that holds several models. */
export function selectSource(source: WeightSource, oldNames: ReadonlyMap<string, string>): WeightSource {
  return sourceOf(source, new Map([...oldNames].map(([name, old]) => [name, { kind: 'source', name: old }])))
}

/** It is closed with the source that it is made of. */
function sourceOf(source: WeightSource, recipes: ReadonlyMap<string, Recipe>): WeightSource {
  const recipeOf = (name: string): Recipe => {
    const recipe = recipes.get(name)
    if (recipe === undefined) throw new RangeError(`expected a tensor ${quote(name)}, but there is none after renaming`)
    return recipe
  }
  return {
    path: source.path,
    names: [...recipes.keys()],
    has: (name) => recipes.has(name),
    tensor: (name) => torch.scope(() => make(recipeOf(name), source)),
    shape: (name) => shapeOfRecipe(recipeOf(name), (each) => shapeIn(source, each)) ?? [],
    isOwn: source.isOwn,
    close: () => source.close?.(),
  }
}

function shapeIn(source: WeightSource, name: string): readonly number[] {
  return source.shape?.(name) ?? torch.scope(() => source.tensor(name).shape)
}

export interface LoadWeightsOptions {
  /** Tables from the checkpoint's names to the module's, one after the other. Default: none. */
  rename?: readonly RenameTable[]
  /** What floating-point tensors become; 'auto' is the file's own. Default: the module's. */
  dtype?: torch.DType | 'auto'
  /** Default: the module's; 'cpu' for one on 'meta'. */
  device?: torch.Device
  /** Templates of the module's names that may be missing, and the value that they are then filled with. */
  optional?: Readonly<Record<string, number>>
}

/** Parameters and saved buffers under all their names; a tied one is the same object under each. */
function targetsOf(module: torch.nn.Module): Map<string, Tensor> {
  const found = new Map<string, Tensor>()
  const visit = (part: torch.nn.Module, prefix: string, path: ReadonlySet<torch.nn.Module>): void => {
    if (path.has(part)) return
    for (const [name, parameter] of part.ownParameters()) found.set(prefix + name, parameter)
    for (const [name, buffer, isSaved] of part.ownBuffers()) if (isSaved) found.set(prefix + name, buffer)
    for (const [name, child] of part.namedChildren()) visit(child, `${prefix}${name}.`, new Set([...path, part]))
  }
  visit(module, '', new Set())
  return found
}

/**
 * Fills a module from a source: every tensor once, none left over, all of the right shape; else one error says all that is
 * wrong, and the module is as it was. Tensors come one at a time, are cast on the way and become the module's memory, so
 * that a module built on 'meta' costs its own size and no more. Those that need no cast stay mapped into memory.
 *
 * @throws WeightsMismatchError
 */
export function loadWeights(module: torch.nn.Module, source: WeightSource, options: LoadWeightsOptions = {}): void {
  const { rename = [], dtype, device, optional = {} } = options
  const targets = targetsOf(module)
  const { recipes, conflicts } = planRenames(source.names, rename)
  const shapes = new Map(
    [...recipes].map(([name, recipe]) => [name, shapeOfRecipe(recipe, (each) => shapeIn(source, each))]),
  )
  const fillOf = (name: string) => Object.entries(optional).find(([template]) => fitsTemplate(template, name))?.[1]

  // a tied tensor needs one of its names only
  const found = new Set([...targets].filter(([name]) => recipes.has(name)).map(([, target]) => target))
  const absent = [...targets].filter(([, target]) => !found.has(target)).map(([name]) => name)
  const missing = absent.filter((name) => fillOf(name) === undefined)
  const unexpected = [...recipes.keys()].filter((name) => !targets.has(name))
  const mismatch = describeMismatch({ targets, shapes, missing, unexpected, conflicts })
  if (mismatch !== null) {
    throw new WeightsMismatchError(
      `loadWeights: expected the ${targets.size} tensors of ${module.constructor.name}, but ${source.path ?? 'the source'} does not give them: ${mismatch.message}`,
      missing,
      unexpected,
      mismatch.misshapen,
    )
  }

  torch.noGrad(() =>
    torch.scope(() => {
      const state = new Map<string, Tensor>()
      for (const [name, target] of targets) {
        const recipe = recipes.get(name)
        const fillWith = recipe === undefined && !found.has(target) ? fillOf(name) : undefined
        if (recipe === undefined && fillWith === undefined) continue
        const place: torch.Device = device ?? (target.isMeta ? 'cpu' : (target.device as torch.Device))
        const wanted = { dtype: dtype ?? target.dtype, device: place }
        const filledDtype = wanted.dtype === 'auto' || !target.isFloatingPoint() ? target.dtype : wanted.dtype
        const made =
          recipe === undefined
            ? torch.full(target.shape, fillWith!, { dtype: filledDtype, device: place })
            : torch.scope(() => fill(recipe, source, target, wanted))
        state.set(name, made)
      }
      module.loadStateDict(state, { assign: true })
    }),
  )
  checkFilled(module)
}

/** A tensor as it is wanted: floating-point ones are cast, unless they are to stay as they are. */
function fill(
  recipe: Recipe,
  source: WeightSource,
  target: Tensor,
  { dtype, device }: { dtype: torch.DType | 'auto'; device: torch.Device },
): Tensor {
  const made = make(recipe, source)
  const wanted = dtype === 'auto' || !target.isFloatingPoint() || !made.isFloatingPoint() ? made.dtype : dtype
  if (wanted === made.dtype && (device === 'cpu' || made.device === device)) return made
  const filled = torch.empty(made.shape, { dtype: wanted, device })
  // in pieces: the pages of what is cast would count as this process's memory until the whole file is let go of; with a
  // model stored in float32 and wanted in bfloat16, three times its size
  const [from, into] = [made.contiguous().view(-1), filled.view(-1)]
  for (let start = 0; start < from.numel(); start += PIECE) {
    torch.scope(() => {
      const piece = from.narrow(0, start, Math.min(PIECE, from.numel() - start))
      into.narrow(0, start, piece.numel()).copy_(piece)
      if (source.isOwn) torch.dropPages(piece)
    })
  }
  return filled
}

function make(recipe: Recipe, source: WeightSource): Tensor {
  switch (recipe.kind) {
    case 'source':
      return source.tensor(recipe.name)
    case 'transpose':
      return make(recipe.of, source).t().contiguous()
    case 'part': {
      const whole = make(recipe.of, source)
      const size = whole.size(recipe.dim) / recipe.count
      return whole.narrow(recipe.dim, recipe.index * size, size).contiguous()
    }
    case 'join':
      return torch.cat(
        recipe.of.map((each) => make(each, source)),
        recipe.dim,
      )
  }
}

function checkFilled(module: torch.nn.Module): void {
  const empty = [...module.namedParameters(), ...module.namedBuffers()].filter(([, tensor]) => tensor.isMeta)
  if (empty.length === 0) return
  throw new TypeError(
    `loadWeights: expected every tensor of ${module.constructor.name} to have values after loading, but ${empty.map(([name]) => name).join(', ')} are on 'meta'; a buffer that is not saved must be made outside of it`,
  )
}
