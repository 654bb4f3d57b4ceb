import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { homedir } from 'node:os'
import { join } from 'node:path'

/*
 * The Hugging Face hub, and its cache folder as Python's huggingface_hub lays it out:
 * <cache>/models--<owner>--<name>/{refs/<revision>, snapshots/<commit>/<files>}.
 */

export interface HubOptions {
  /** A branch, a tag or a commit. Default: 'main'. */
  revision?: string | null
  /** Ask nobody: only what is in the cache. Default: HF_HUB_OFFLINE. */
  offline?: boolean
  /** Default: HF_HUB_CACHE, else hub/ in HF_HOME, else ~/.cache/huggingface/hub. */
  cacheFolder?: string
}

/** Whether a text can be the name of a repository. */
export function isRepositoryName(name: string): boolean {
  return /^([\w-][\w.-]{0,95}\/)?[\w-][\w.-]{0,95}$/.test(name) && !name.includes('..')
}

export function hubCacheFolder(): string {
  const { HF_HUB_CACHE, HUGGINGFACE_HUB_CACHE, HF_HOME, XDG_CACHE_HOME } = process.env
  const explicit = HF_HUB_CACHE || HUGGINGFACE_HUB_CACHE
  if (explicit) return explicit
  return join(HF_HOME || join(XDG_CACHE_HOME || join(homedir(), '.cache'), 'huggingface'), 'hub')
}

function isOffline(): boolean {
  return [process.env.HF_HUB_OFFLINE, process.env.TRANSFORMERS_OFFLINE].some((value) =>
    ['1', 'true', 'yes', 'on'].includes((value ?? '').toLowerCase()),
  )
}

/** The folder of a snapshot in the cache, or null where the cache has none that is whole. */
export function cachedSnapshot(repository: string, options: HubOptions = {}): string | null {
  const { revision, cacheFolder = hubCacheFolder() } = options
  const folder = join(cacheFolder, `models--${repository.replaceAll('/', '--')}`)
  const snapshots = join(folder, 'snapshots')
  if (!existsSync(snapshots)) return null
  const reference = join(folder, 'refs', revision ?? 'main')
  const commit = existsSync(reference) ? readFileSync(reference, 'utf8').trim() : revision
  // without a reference (a copied cache) the only snapshot is meant
  const all = readdirSync(snapshots)
  const name = commit ?? (all.length === 1 ? all[0] : undefined)
  if (name === undefined || name.includes('/') || !existsSync(join(snapshots, name))) return null
  const snapshot = join(snapshots, name)
  return readdirSync(snapshot).some((file) => isWeights(file)) ? snapshot : null
}

const weightsPattern = /^(model|pytorch_model)([-.].*)?\.(safetensors|bin)(\.index\.json)?$/

function isWeights(file: string): boolean {
  return weightsPattern.test(file)
}

/**
 * The files of a repository that are needed: configurations, the tokenizer, and weights once: safetensors where there are
 * any, else pickles.
 */
export function neededFiles(files: readonly string[]): readonly string[] {
  const top = files.filter((file) => !file.includes('/'))
  const weights = top.filter(isWeights)
  const safe = weights.filter((file) => file.includes('.safetensors'))
  const others =
    /^(config|generation_config|preprocessor_config|tokenizer.*|special_tokens_map|added_tokens|vocab)\.json$/
  const texts = /^(vocab|merges)\.txt$|^tokenizer\.model$|^(LICENSE|LICENCE|NOTICE)/i
  return [...top.filter((file) => others.test(file) || texts.test(file)), ...(safe.length > 0 ? safe : weights)]
}

/**
 * The folder of a repository of the hub: from the cache where it is there, else downloaded into it.
 *
 * HF_ENDPOINT (a mirror), HF_TOKEN and HF_HUB_OFFLINE are as for Python.
 */
export async function hubSnapshot(repository: string, options: HubOptions = {}): Promise<string> {
  const { revision, offline = isOffline(), cacheFolder = hubCacheFolder() } = options
  const cached = cachedSnapshot(repository, options)
  if (cached !== null) return cached
  const place = `the cache '${cacheFolder}'`
  if (offline) {
    throw new Error(
      `expected '${repository}' in ${place}, but it is not there and HF_HUB_OFFLINE is set; copy it there, or give a folder`,
    )
  }
  try {
    return await download(repository, revision ?? 'main', cacheFolder)
  } catch (thrown) {
    const reason = thrown instanceof Error ? thrown.message : String(thrown)
    throw new Error(
      `expected '${repository}' in ${place} or on the hub, but it is not in the cache, and getting it failed (${reason}); check the name and the network, or give a folder`,
      { cause: thrown },
    )
  }
}

async function download(repository: string, revision: string, cacheDir: string): Promise<string> {
  const hub = await import('@huggingface/hub')
  const { HF_ENDPOINT, HF_TOKEN } = process.env
  const shared = {
    repo: repository,
    revision,
    ...(HF_ENDPOINT ? { hubUrl: HF_ENDPOINT } : {}),
    ...(HF_TOKEN ? { accessToken: HF_TOKEN } : {}),
  }
  const files: string[] = []
  for await (const file of hub.listFiles(shared)) if (file.type === 'file') files.push(file.path)
  const needed = neededFiles(files)
  if (!needed.some(isWeights)) {
    throw new Error(`it has no model.safetensors and no pytorch_model.bin among its ${files.length} files`)
  }
  for (const path of needed) await hub.downloadFileToCacheDir({ ...shared, path, cacheDir })
  const snapshot = cachedSnapshot(repository, { revision, cacheFolder: cacheDir })
  if (snapshot === null) throw new Error('the download left no snapshot in the cache')
  return snapshot
}
