import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import sharp from 'sharp'
import { afterAll, describe, expect, it } from 'vitest'
import { FINDING_NAMES, FIVE_WAY } from '../../../src/data/phantoms/chexpert/labels.js'
import { type PhantomOptions, writePhantoms } from '../../../src/data/phantoms/index.js'

const folder = mkdtempSync(join(tmpdir(), 'phantoms-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

/** All files of a folder with their bytes. */
function filesOf(root: string): Map<string, Buffer> {
  const names = readdirSync(root, { recursive: true, encoding: 'utf8' }).sort()
  const files = names.filter((name) => statSync(join(root, name)).isFile())
  return new Map(files.map((name) => [name, readFileSync(join(root, name))]))
}

const linesOf = (path: string): string[] => readFileSync(path, 'utf8').trimEnd().split('\n')

async function write(name: string, options: Partial<PhantomOptions> & Pick<PhantomOptions, 'kind'>) {
  const out = join(folder, name)
  const result = await writePhantoms({ out, patients: 3, seed: 5, workers: 1, ...options })
  return { out, result }
}

/** Tags in groups and elements to their values as text; enough of DICOM for what is written here. */
function readDicom(bytes: Buffer): Map<string, { vr: string; value: Buffer }> {
  expect(bytes.subarray(128, 132).toString()).toBe('DICM')
  const elements = new Map<string, { vr: string; value: Buffer }>()
  for (let at = 132; at < bytes.length; ) {
    const tag = `${bytes.readUInt16LE(at).toString(16).padStart(4, '0')}${bytes
      .readUInt16LE(at + 2)
      .toString(16)
      .padStart(4, '0')}`
    const vr = bytes.toString('latin1', at + 4, at + 6)
    const long = vr === 'OB' || vr === 'OW'
    const length = long ? bytes.readUInt32LE(at + 8) : bytes.readUInt16LE(at + 6)
    const start = at + (long ? 12 : 8)
    const end = length === 0xffffffff ? bytes.length : start + length
    elements.set(tag, { vr, value: bytes.subarray(start, end) })
    at = end
  }
  return elements
}

const text = (elements: ReturnType<typeof readDicom>, tag: string): string =>
  elements
    .get(tag)!
    .value.toString('latin1')
    .replace(/[ \0]+$/, '')

describe('chexpert phantoms', () => {
  it('lie as CheXpert-v1.0-small does', async () => {
    const { out, result } = await write('layout', { kind: 'chexpert', patients: 4, fiveWay: 1 })
    const header = `Path,Sex,Age,Frontal/Lateral,AP/PA,${FINDING_NAMES.join(',')}`
    const root = join(out, 'CheXpert-v1.0-small')
    const rows: string[] = []
    for (const split of ['train', 'valid']) {
      const [first, ...rest] = linesOf(join(root, `${split}.csv`))
      expect(first).toBe(header)
      rows.push(...rest)
    }
    expect(rows).toHaveLength(result.images)
    for (const row of rows) {
      const cells = row.split(',')
      expect(cells).toHaveLength(19)
      expect(cells[0]).toMatch(/^CheXpert-v1\.0-small\/(train|valid)\/patient\d{5}\/study\d+\/view1_frontal\.jpg$/)
      expect(['Male', 'Female']).toContain(cells[1])
      expect(cells[3]).toBe('Frontal')
      expect(['AP', 'PA']).toContain(cells[4])
      for (const cell of cells.slice(5)) expect(['', '1.0', '0.0', '-1.0']).toContain(cell)
      if (cells[0]!.includes('/valid/')) expect(cells.slice(5)).not.toContain('')
      const { format, width, height, channels } = await sharp(join(out, cells[0]!)).metadata()
      expect({ format, channels, shorter: Math.min(width, height) }).toEqual({
        format: 'jpeg',
        channels: 1,
        shorter: 320,
      })
      expect(Math.max(width, height)).toBeLessThanOrEqual(390)
    }
  })

  it('have a five-way patient of each class in every five', async () => {
    const { out } = await write('five', { kind: 'chexpert', patients: 1, fiveWay: 1 })
    const rows = linesOf(join(out, 'CheXpert-v1.0-small', 'train.csv')).filter((row) => row.includes('patient5000'))
    const positive = rows.map((row) => {
      const cells = row.split(',').slice(5)
      expect(cells).not.toContain('-1.0')
      return FINDING_NAMES.filter((_, index) => cells[index] === '1.0')
    })
    expect(positive.map((names) => names.length)).toEqual([1, 1, 1, 1, 1])
    expect(positive.flat().sort()).toEqual([...FIVE_WAY].sort())
  })
})

describe('rsna phantoms', () => {
  it('lie as the challenge has them, with JPEG baseline in DICOM', async () => {
    const { out } = await write('rsna', { kind: 'rsna', patients: 5, seed: 2 })
    const [header, ...rows] = linesOf(join(out, 'stage_2_train_labels.csv'))
    expect(header).toBe('patientId,x,y,width,height,Target')
    const ids = [...new Set(rows.map((row) => row.split(',')[0]!))]
    expect(ids).toEqual([...ids].sort())
    expect(readdirSync(join(out, 'stage_2_train_images')).sort()).toEqual(ids.map((id) => `${id}.dcm`))
    const classes = new Map(
      linesOf(join(out, 'stage_2_detailed_class_info.csv'))
        .slice(1)
        .map((line) => line.split(',') as [string, string]),
    )
    for (const row of rows) {
      const [id, x, y, width, height, target] = row.split(',')
      expect(target).toBe(classes.get(id!) === 'Lung Opacity' ? '1' : '0')
      if (target === '0') expect([x, y, width, height]).toEqual(['', '', '', ''])
      else {
        expect(x).toMatch(/^\d+\.0$/)
        expect(Number(x) + Number(width)).toBeLessThanOrEqual(1024)
        expect(Number(y) + Number(height)).toBeLessThanOrEqual(1024)
      }
    }
    const elements = readDicom(readFileSync(join(out, 'stage_2_train_images', `${ids[0]}.dcm`)))
    expect(text(elements, '00020010')).toBe('1.2.840.10008.1.2.4.50')
    expect(text(elements, '00280004')).toBe('MONOCHROME2')
    expect(text(elements, '00100020')).toBe(ids[0])
    expect(elements.get('00280010')!.value.readUInt16LE()).toBe(1024)
    const pixels = elements.get('7fe00010')!
    expect(pixels.vr).toBe('OB')
    // An empty offset table of eight bytes, then the header of the one fragment.
    const frame = pixels.value.subarray(16, 16 + pixels.value.readUInt32LE(12))
    const { width, height, channels } = await sharp(frame).metadata()
    expect([width, height, channels]).toEqual([1024, 1024, 1])
  })
})

describe('embed phantoms', () => {
  it("lie as EMBED's open data does, with 12 bits uncompressed", async () => {
    const { out } = await write('embed', { kind: 'embed', patients: 2 })
    const tables = join(out, 'tables')
    const read = (name: string) => linesOf(join(tables, name)).map((line) => line.split(','))
    const [columns, ...images] = read('EMBED_OpenData_metadata.csv')
    const [clinicalColumns, ...clinical] = read('EMBED_OpenData_clinical.csv')
    const [reducedColumns] = read('EMBED_OpenData_clinical_reduced.csv')
    const common = [
      'empi_anon',
      'acc_anon',
      'side',
      'tissueden',
      'asses',
      'age_at_study',
      'RACE_DESC',
      'ETHNIC_GROUP_DESC',
    ]
    for (const column of common) expect(reducedColumns).toContain(column)
    const details = ['massshape', 'massdens', 'calcfind', 'calcdistri']
    for (const column of [...common, ...details]) expect(clinicalColumns).toContain(column)
    for (const column of ['FinalImageType', 'StudyDescription']) expect(columns).toContain(column)

    const legend = read('AWS_Open_Data_Clinical_Legend.csv')
    expect(legend[0]).toEqual(['Header in export', 'Code', 'Meaning'])
    const known = new Set(legend.map(([header, code]) => `${header} ${code}`))
    for (const row of clinical) {
      expect('ANBPSMK').toContain(row[clinicalColumns!.indexOf('asses')]!)
      for (const column of details) {
        const code = row[clinicalColumns!.indexOf(column)]
        if (code !== '' && row.length === clinicalColumns!.length) expect(known).toContain(`${column} ${code}`)
      }
    }
    for (const row of images) {
      const cell = (name: string) => row[columns!.indexOf(name)]!
      const path = cell('anon_dicom_path').replace('/mnt/NAS2/mammo/anon_dicom', join(out, 'images'))
      const elements = readDicom(readFileSync(path))
      expect(text(elements, '00020010')).toBe('1.2.840.10008.1.2.1')
      expect(text(elements, '00200062')).toBe(cell('ImageLateralityFinal'))
      expect(text(elements, '00185101')).toBe(cell('ViewPosition'))
      expect(elements.get('00280101')!.value.readUInt16LE()).toBe(12)
      const [height, width] = ['00280010', '00280011'].map((tag) => elements.get(tag)!.value.readUInt16LE())
      const bytes = elements.get('7fe00010')!.value
      expect(bytes.length).toBe(2 * width! * height!)
      const values = new Uint16Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length))
      expect(values.reduce((most, value) => Math.max(most, value), 0)).toBeLessThan(4096)
      // The breast lies against its chest wall: at the left for the left one.
      const sums = [0, 0]
      for (const [index, value] of values.entries()) sums[index % width! < width! / 2 ? 0 : 1]! += value
      expect(sums[0]! > sums[1]!).toBe(cell('ImageLateralityFinal') === 'L')
    }
  })
})

describe('phantoms', () => {
  it('are the same bytes whatever the number of workers', async () => {
    const one = await write('one', { kind: 'chexpert', workers: 1 })
    const three = await write('three', { kind: 'chexpert', workers: 3 })
    expect(filesOf(three.out)).toEqual(filesOf(one.out))
    const other = await write('seed', { kind: 'chexpert', seed: 6 })
    const name = 'CheXpert-v1.0-small/train/patient00001/study1/view1_frontal.jpg'
    expect(readFileSync(join(other.out, name)).equals(readFileSync(join(one.out, name)))).toBe(false)
  })

  it('of a patient do not depend on how many there are', async () => {
    for (const kind of ['chexpert', 'rsna', 'embed'] as const) {
      const few = await write(`few-${kind}`, { kind, patients: 1 })
      const more = await write(`more-${kind}`, { kind, patients: 2, fiveWay: kind === 'chexpert' ? 1 : 0 })
      const all = filesOf(more.out)
      for (const [name, bytes] of filesOf(few.out)) {
        if (/\.(jpg|dcm)$/.test(name)) expect(all.get(name)?.equals(bytes), name).toBe(true)
      }
    }
  })

  it('go on where a run was stopped, and leave what is there', async () => {
    const { out } = await write('stopped', { kind: 'chexpert' })
    const before = filesOf(out)
    const images = [...before.keys()].filter((name) => name.endsWith('.jpg'))
    rmSync(join(out, images[1]!))
    rmSync(join(out, 'CheXpert-v1.0-small', 'train.csv'))
    writeFileSync(join(out, `${images[1]}.part`), 'half')
    const untouched = statSync(join(out, images[0]!)).mtimeMs
    await write('stopped', { kind: 'chexpert' })
    expect(filesOf(out)).toEqual(before)
    expect(statSync(join(out, images[0]!)).mtimeMs).toBe(untouched)
  })

  it('refuse a folder of something else, and settings out of range', async () => {
    const foreign = join(folder, 'foreign')
    mkdirSync(foreign)
    writeFileSync(join(foreign, 'thesis.txt'), 'mine')
    await expect(write('foreign', { kind: 'rsna' })).rejects.toThrow(/expected an empty folder/)
    expect(readdirSync(foreign)).toEqual(['thesis.txt'])
    writeFileSync(join(folder, 'file'), '')
    await expect(write('file', { kind: 'rsna' })).rejects.toThrow(/is a file/)
    await expect(write('file/below', { kind: 'rsna' })).rejects.toThrow(/is a file|where a folder is needed/)
    await write('others', { kind: 'rsna', patients: 1 })
    await expect(write('others', { kind: 'rsna', patients: 2 })).rejects.toThrow(/phantoms of other settings/)

    const bad: [Partial<PhantomOptions>, RegExp][] = [
      [{ patients: 0 }, /patients to be a whole number from 1 to 50000, but received 0/],
      [{ patients: 50_001 }, /from 1 to 50000/],
      [{ patients: 1.5 }, /whole number/],
      [{ patients: Number.NaN }, /whole number/],
      [{ kind: 'mnist' }, /a kind of chexpert, rsna, embed, but received 'mnist'/],
      [{ seed: 0.5 }, /seed to be a whole number/],
      [{ fiveWay: -1 }, /five-way/],
      [{ workers: 0 }, /workers/],
    ]
    for (const [options, message] of bad) {
      await expect(write('never', { kind: 'chexpert', ...options })).rejects.toThrow(message)
    }
    await expect(write('never', { kind: 'rsna', fiveWay: 2 })).rejects.toThrow(/with chexpert only/)
    expect(readdirSync(folder)).not.toContain('never')
  })

  it.runIf(process.platform === 'linux')('say in a sentence where nothing can be written', async () => {
    const out = '/proc/phantoms'
    await expect(writePhantoms({ kind: 'rsna', out, patients: 1 })).rejects.toThrow(/was expected to be written, but/)
  })

  it('write a sheet', async () => {
    const sheet = join(folder, 'below', 'sheet.png')
    await write('shown', { kind: 'rsna', patients: 2, sheet })
    expect((await sharp(sheet).metadata()).format).toBe('png')
  })
})
