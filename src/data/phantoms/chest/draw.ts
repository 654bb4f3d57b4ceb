import type { GrayImage } from '../../images/gray.js'
import { Random } from '../../random.js'
import { Layer } from '../canvas.js'
import { collimate, expose, mark, type Placement, pixelOf, project, sampleWarp, toGray } from '../film.js'
import { type Body, chestFrame, type FrontalView, type Shape, sampleShape } from './anatomy.js'
import { placeDevices } from './devices.js'
import * as findings from './findings.js'
import {
  type BrokenRib,
  drawBones,
  drawChestOrgans,
  drawTrunk,
  drawVessels,
  outlineLungs,
  type Scene,
} from './scene.js'

export interface ChestSettings {
  /** What the random numbers of this image begin with. */
  readonly keys: readonly (number | string)[]
  readonly body: Body
  readonly view: FrontalView
  /** How severe each finding is that is there: 0 (hardly to be seen) to 1. Names as in CheXpert's table. */
  readonly severities: ReadonlyMap<string, number>
  readonly width: number
  readonly height: number
  /** Pixels a unit of the drawing. */
  readonly scale: number
}

/** What encloses an opacity, in pixels of the image. */
export interface ChestBox {
  readonly x: number
  readonly y: number
  readonly width: number
  readonly height: number
}

/** What is known before anything is drawn. */
interface Plan {
  readonly shape: Shape
  readonly loss: findings.VolumeLoss | null
  readonly broken: readonly BrokenRib[]
  readonly pneumonia: readonly findings.Patch[]
}

/** Runs what a finding does where it is there, with random numbers of its own. */
function where<Result>(
  { keys, severities }: ChestSettings,
  name: string,
  act: (random: Random, severity: number) => Result,
): Result | null {
  const severity = severities.get(name)
  return severity === undefined ? null : act(new Random(...keys, name), severity)
}

function planChest(settings: ChestSettings): Plan {
  const { keys, body, view } = settings
  const shape = sampleShape(new Random(...keys, 'shape'), body, view)
  where(settings, 'Cardiomegaly', (random, severity) => findings.enlargeHeart(random, severity, shape))
  where(settings, 'Enlarged Cardiomediastinum', (random, severity) =>
    findings.widenMediastinum(random, severity, shape),
  )
  return {
    shape,
    loss: where(settings, 'Atelectasis', (random, severity) => findings.loseVolume(random, severity, shape)),
    broken: where(settings, 'Fracture', (random, severity) => findings.breakRibs(random, severity, body, shape)) ?? [],
    pneumonia:
      where(settings, 'Pneumonia', (random, severity) => findings.placePneumonia(random, severity, { body, shape })) ??
      [],
  }
}

/** A frontal radiograph. Nothing of the film depends on the findings. */
export function drawChest(settings: ChestSettings): GrayImage {
  const { keys, view, width } = settings
  const film = project(drawAbsorption(settings, planChest(settings)), placeFilm(settings))
  const random = new Random(...keys, 'exposure')
  const exposure = {
    black: random.uniform(0.02, 0.14),
    white: random.uniform(0.92, 1.12),
    gamma: random.uniform(0.72, 1.25),
    grain: random.uniform(1, view === 'AP' ? 7 : 4),
    heel: [random.normal(0, 0.05), random.normal(0, 0.04)],
  } as const
  const levels = expose(film, width, exposure, new Random(...keys, 'grain'))
  mark(new Random(...keys, 'marker'), levels, width)
  collimate(new Random(...keys, 'collimation'), levels, width)
  return toGray(levels, width)
}

/** What encloses each opacity of a pneumonia; nothing is drawn for it. */
export function pneumoniaBoxes(settings: ChestSettings): ChestBox[] {
  const placement = placeFilm(settings)
  return planChest(settings).pneumonia.map((patch) => boxOf(placement, patch))
}

function drawAbsorption(settings: ChestSettings, { shape, loss, broken, pneumonia }: Plan): Layer {
  const { keys, body, severities } = settings
  const random = (purpose: string) => new Random(...keys, purpose)
  const frame = chestFrame(settings.scale)
  const scene: Scene = { body, shape, density: new Layer(frame), lungs: outlineLungs(body, shape, frame) }
  drawTrunk(random('trunk'), scene)
  drawChestOrgans(random('organs'), scene)
  const collapse = where(settings, 'Pneumothorax', findings.collapse)
  const kept = collapse === null ? null : findings.keptLung(scene, collapse)
  const congestion = 1 + 0.5 * (severities.get('Edema') ?? 0)
  drawVessels(new Random(body.vesselSeed, 'vessels'), scene, congestion, (index) => kept?.data[index] ?? 1)

  where(settings, 'Edema', (own, severity) => findings.flood(own, severity, scene))
  where(settings, 'Lung Opacity', (own, severity) => findings.opacify(own, severity, scene))
  where(settings, 'Consolidation', (own, severity) => findings.consolidate(own, severity, scene))
  where(settings, 'Pneumonia', (_, severity) =>
    findings.inflame(random('Pneumonia, drawn'), severity, pneumonia, scene),
  )
  where(settings, 'Lung Lesion', (own, severity) => findings.addNodules(own, severity, scene))
  if (loss !== null) findings.drawAtelectasis(random('Atelectasis, drawn'), loss, scene)
  if (collapse !== null && kept !== null) findings.drawPneumothorax(scene, collapse, kept)
  where(settings, 'Pleural Effusion', (own, severity) => findings.pourFluid(own, severity, scene))
  where(settings, 'Pleural Other', (own, severity) => findings.thickenPleura(own, severity, scene))
  drawBones(random('bones'), scene, broken)
  where(settings, 'Support Devices', (own, severity) => placeDevices(own, severity, scene))
  return scene.density
}

function placeFilm({ keys, view, width, height }: ChestSettings): Placement {
  const random = new Random(...keys, 'position')
  // Seen are the thorax with some room at its sides, and all of its height: whichever needs more.
  const across = random.uniform(2.35, 2.95)
  const down = random.uniform(2.15, 2.6)
  return {
    width,
    height,
    center: { x: random.normal(0, 0.06), y: 0.82 + random.normal(0, 0.08) },
    pixel: Math.max(across / width, down / height),
    angle: random.normal(0, view === 'AP' ? 0.05 : 0.022),
    warp: sampleWarp(random, 0.05, 0.9),
  }
}

function boxOf(placement: Placement, { center, radii }: findings.Patch): ChestBox {
  const corners = [-1, 1].flatMap((u) =>
    [-1, 1].map((v) => pixelOf(placement, { x: center.x + u * radii[0], y: center.y + v * radii[1] })),
  )
  const limit = (value: number, most: number) => Math.min(most, Math.max(0, Math.round(value)))
  const x = limit(Math.min(...corners.map((corner) => corner.x)), placement.width - 2)
  const y = limit(Math.min(...corners.map((corner) => corner.y)), placement.height - 2)
  return {
    x,
    y,
    width: Math.max(1, limit(Math.max(...corners.map((corner) => corner.x)), placement.width) - x),
    height: Math.max(1, limit(Math.max(...corners.map((corner) => corner.y)), placement.height) - y),
  }
}
