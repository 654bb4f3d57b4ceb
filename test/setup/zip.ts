import { createHash } from 'node:crypto'
import { mkdirSync, writeFileSync } from 'node:fs'
import { dirname } from 'node:path'
import { crc32 } from 'node:zlib'

export interface ZipFile {
  readonly name: string
  readonly data: string
  /** Unix mode with the file's kind; a plain file unless given. */
  readonly mode?: number
}

/** Writes a zip without compression, with any name, also one that no honest tool would write. */
export function writeZip(file: string, entries: readonly ZipFile[]): void {
  const parts: Buffer[] = []
  const directory: Buffer[] = []
  let offset = 0
  for (const { name, data, mode = 0o100644 } of entries) {
    const bytes = Buffer.from(data)
    const path = Buffer.from(name)
    const local = Buffer.alloc(30)
    local.writeUInt32LE(0x04034b50, 0)
    local.writeUInt16LE(20, 4)
    local.writeUInt32LE(crc32(bytes), 14)
    local.writeUInt32LE(bytes.length, 18)
    local.writeUInt32LE(bytes.length, 22)
    local.writeUInt16LE(path.length, 26)
    const central = Buffer.alloc(46)
    central.writeUInt32LE(0x02014b50, 0)
    central.writeUInt16LE((3 << 8) | 20, 4)
    central.writeUInt16LE(20, 6)
    central.writeUInt32LE(crc32(bytes), 16)
    central.writeUInt32LE(bytes.length, 20)
    central.writeUInt32LE(bytes.length, 24)
    central.writeUInt16LE(path.length, 28)
    central.writeUInt32LE((mode << 16) >>> 0, 38)
    central.writeUInt32LE(offset, 42)
    parts.push(local, path, bytes)
    directory.push(central, path)
    offset += 30 + path.length + bytes.length
  }
  const central = Buffer.concat(directory)
  const end = Buffer.alloc(22)
  end.writeUInt32LE(0x06054b50, 0)
  end.writeUInt16LE(entries.length, 8)
  end.writeUInt16LE(entries.length, 10)
  end.writeUInt32LE(central.length, 12)
  end.writeUInt32LE(offset, 16)
  mkdirSync(dirname(file), { recursive: true })
  writeFileSync(file, Buffer.concat([...parts, central, end]))
}

export interface WheelOptions {
  readonly name: string
  readonly version: string
  readonly requires?: readonly string[]
  readonly files: Readonly<Record<string, string>>
  /** Put into RECORD in place of the true sums. */
  readonly sums?: Readonly<Record<string, string>>
  readonly extra?: readonly ZipFile[]
}

/** Writes a wheel with a true RECORD. */
export function writeWheel(file: string, options: WheelOptions): void {
  const info = `${options.name.replaceAll('-', '_')}-${options.version}.dist-info`
  const requires = (options.requires ?? []).map((line) => `Requires-Dist: ${line}\n`).join('')
  const files: Record<string, string> = {
    ...options.files,
    [`${info}/METADATA`]: `Metadata-Version: 2.1\nName: ${options.name}\nVersion: ${options.version}\n${requires}\nText\n`,
    [`${info}/WHEEL`]: 'Wheel-Version: 1.0\n',
  }
  const record = Object.entries(files).map(([name, data]) => {
    const sum = options.sums?.[name] ?? createHash('sha256').update(data).digest('base64url')
    return `${name.includes(',') ? `"${name}"` : name},sha256=${sum},${Buffer.byteLength(data)}\n`
  })
  const entries = Object.entries(files).map(([name, data]) => ({ name, data }))
  writeZip(file, [
    ...entries,
    ...(options.extra ?? []),
    { name: `${info}/RECORD`, data: `${record.join('')}${info}/RECORD,,\n` },
  ])
}

/** A torch wheel with just what is looked at, for this platform. */
export function torchFiles(version: string, cuda: string | null): Record<string, string> {
  const files: Record<string, string> = {
    'torch/version.py': `__version__ = '${version}'\ncuda: Optional[str] = ${cuda === null ? 'None' : `'${cuda}'`}\n`,
    'torch/include/ATen/ATen.h': '// ATen\n',
    'torch/lib/libtorch_cpu.so': 'cpu',
    'torch/lib/libc10.so': 'c10',
    'torch/nn/__init__.py': 'not needed here',
  }
  if (cuda !== null) files['torch/lib/libtorch_cuda.so'] = 'cuda'
  return files
}
