import type { ArgumentsCamelCase, Argv } from 'yargs'
import type { Resize } from '../data/augment/input.js'
import type { ImageStage, StagedImage, Windowing } from '../data/images/index.js'

export const command = 'image <file>'
export const describe = 'Show or save an image or DICOM file as it is at a stage of the preprocessing'

interface Options {
  file: string
  stage: ImageStage | 'input' | undefined
  augment: number | undefined
  resize: Resize
  windowing: Windowing
  size: number
  out: string | undefined
  json: boolean
}

export function builder(yargs: Argv): Argv<Options> {
  return yargs
    .positional('file', { type: 'string', demandOption: true, describe: 'DICOM, PNG, JPEG, TIFF or WebP' })
    .option('stage', {
      type: 'string',
      choices: ['pixels', 'uint8', 'padded', 'cropped', 'input'],
      describe:
        'pixels: as stored; uint8: scaled, MONOCHROME1 inverted; padded: a square; cropped: to its bright part; input: what an encoder gets; default: padded',
    })
    .option('augment', { type: 'number', describe: 'the seed of a training augmentation (stage input)' })
    .option('resize', {
      type: 'string',
      choices: ['published', 'crop', 'whole'],
      default: 'published',
      describe:
        'for the stage input: the cropped image stretched to 224 x 224, or to 256 x 256 and 224 cut out, or the whole padded image',
    })
    .option('windowing', {
      type: 'string',
      choices: ['published', 'dicom'],
      default: 'published',
      describe: 'how DICOM values become gray: by the largest, or by the window or table of the file',
    })
    .option('size', { type: 'number', default: 256, describe: 'side of the padded square, in pixels' })
    .option('out', { type: 'string', describe: 'a .png, or a .safetensors with the tensor `image`' })
    .option('json', { type: 'boolean', default: false, describe: 'one JSON object' }) as Argv<Options>
}

function summary(image: StagedImage, file: string, out: string | undefined): string {
  const { stage, height, width, dtype, min, max, box, format, bits, inverted, warnings } = image
  const lines = [
    `${file}: ${format}, ${bits} bits${inverted ? ', MONOCHROME1' : ''}`,
    `${stage}: [${height}, ${width}] ${dtype}, ${min} to ${max}`,
  ]
  if (box) lines.push(`box: rows ${box.top} to ${box.bottom}, columns ${box.left} to ${box.right}`)
  for (const warning of warnings) lines.push(`warning: ${warning}`)
  if (out !== undefined) lines.push(`written to ${out}`)
  return lines.join('\n')
}

export async function handler(options: ArgumentsCamelCase<Options>): Promise<void> {
  const { file, augment, windowing, size, out, json } = options
  const stage = options.stage ?? (augment === undefined ? 'padded' : 'input')
  if (augment !== undefined && stage !== 'input') {
    throw new Error(`expected --stage input for --augment, but received ${stage}; what is augmented is the last stage`)
  }
  const { checkImagePath, imageAtStage, saveImage } = await import('../data/images/index.js')
  if (out !== undefined) checkImagePath(out)
  if (stage === 'input') return await input(options)
  const image = await imageAtStage(file, stage, { windowing, size })
  if (out !== undefined) await saveImage(image, out)
  const { height, width, dtype, min, max, box, format, bits, inverted, warnings } = image
  const report = { file, stage, shape: [height, width], dtype, min, max, box, format, bits, inverted, warnings }
  process.stdout.write(`${json ? JSON.stringify({ ...report, out: out ?? null }) : summary(image, file, out)}\n`)
}

/** The last stage is a tensor, and needs libtorch. */
async function input({ file, windowing, size, resize, augment, out, json }: Options): Promise<void> {
  const { inputStage, saveInput } = await import('../data/augment/stage.js')
  const { image, warnings } = await inputStage(file, { windowing, size, resize, augment })
  if (out !== undefined) await saveInput(image, out)
  const { shape, dtype } = image
  const [min, max] = [image.min().item(), image.max().item()]
  if (json) {
    const report = { file, stage: 'input', shape, dtype, min, max, warnings, out: out ?? null }
    process.stdout.write(`${JSON.stringify(report)}\n`)
    return
  }
  const lines = [`input: [${shape.join(', ')}] ${dtype}, ${min} to ${max}`]
  for (const warning of warnings) lines.push(`warning: ${warning}`)
  if (out !== undefined) lines.push(`written to ${out}`)
  process.stdout.write(`${lines.join('\n')}\n`)
}
