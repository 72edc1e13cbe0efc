"""Puts a person together: body, clothes, hair, things worn and carried, in a pose, somewhere in the world."""

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass, replace

import numpy as np
from scipy.spatial.transform import Rotation

from unihap.synth.accessories import held_objects, worn_shells
from unihap.synth.body import Body, RestBody, skin
from unihap.synth.cloth import compacted
from unihap.synth.garments import outfit_shells
from unihap.synth.hair import face_shells, hair_shells
from unihap.synth.structures import Figure, Mesh, Person, Pose, Shell

CACHE_SIZE = 24  # dressed rest bodies kept; about 12 MB each


@dataclass(frozen=True)
class Dressed:
    """A dressed person at rest, ready to be posed any number of times.

    Attributes:
        rest: the bare body.
        seen: numbers of the body's vertices that clothes leave uncovered.
        mesh: at rest; these vertices first, then those of everything worn.
        weights: (V - body's, J) float32, how what is worn follows the bones.
    """

    rest: RestBody
    seen: np.ndarray
    mesh: Mesh
    weights: np.ndarray


class Wardrobe:
    """Dresses people; keeps the last ones, since an identity is rendered many times."""

    def __init__(self, body: Body) -> None:
        self.body = body
        self._dressed: OrderedDict[Hashable, Dressed] = OrderedDict()

    def figure(self, person: Person, pose: Pose, yaw: float, place: tuple[float, float]) -> Figure:
        """A dressed person in a pose, the lowest point on the ground.

        Args:
            person: who.
            pose: how.
            yaw: radians about z; 0 faces -y.
            place: (x, y) of the root bone, metres.
        """
        dressed = self._dress(person)
        posed = self.body.pose(dressed.rest, pose.rotations)
        mesh = dressed.mesh
        worn = skin(mesh.vertices[len(dressed.seen) :], dressed.weights, posed.transforms)
        whole = replace(mesh, vertices=np.concatenate([posed.vertices[dressed.seen], worn]))
        for shell in held_objects(self.body, dressed.rest, posed, person.outfit, pose):
            whole = _joined(whole, shell)
        turn = Rotation.from_euler("z", yaw).as_matrix()
        placed = whole.vertices.astype(np.float64) @ turn.T
        shift = np.array([*place, -placed[:, 2].min()])
        return Figure(
            person=person,
            pose=pose,
            mesh=replace(whole, vertices=(placed + shift).astype(np.float32)),
            keypoints=posed.keypoints @ turn.T + shift,
            yaw=yaw,
        )

    def _dress(self, person: Person) -> Dressed:
        # people of different splits may have the same numbers
        key = (person.identity, person.outfit, person.hair, tuple(sorted(person.shape.items())))
        if key not in self._dressed:
            self._dressed[key] = _dressed(self.body, person)
            if len(self._dressed) > CACHE_SIZE:
                self._dressed.popitem(last=False)
        self._dressed.move_to_end(key)
        return self._dressed[key]


def _dressed(body: Body, person: Person) -> Dressed:
    rest = body.rest(person.shape)
    outfit = person.outfit
    shells = [
        *outfit_shells(body, rest, outfit),
        *face_shells(body, rest, person.hair.colour),
        *hair_shells(body, rest, person.hair, outfit.hat is not None),
        *worn_shells(body, rest, outfit),
    ]
    shown = np.ones(len(body.faces), dtype=bool)
    for shell in shells:
        shown[shell.covers] = False
    seen, faces = compacted(body.faces[shown], len(rest.vertices))
    mesh = Mesh(
        vertices=rest.vertices[seen],
        faces=faces,
        part=body.part_of_face[shown],
        material=np.zeros(shown.sum(), dtype=np.uint8),
        surface=rest.vertices[seen],
        materials=(person.skin,),
    )
    for shell in shells:
        mesh = _joined(mesh, shell)
    return Dressed(rest, seen, mesh, np.concatenate([shell.weights for shell in shells]))


def _joined(mesh: Mesh, shell: Shell) -> Mesh:
    """A mesh with a shell added; its place at rest becomes its pattern coordinates."""
    part = np.broadcast_to(np.asarray(shell.part, dtype=np.uint8), len(shell.faces))
    return Mesh(
        vertices=np.concatenate([mesh.vertices, shell.vertices.astype(np.float32)]),
        faces=np.concatenate([mesh.faces, shell.faces.astype(np.int32) + len(mesh.vertices)]),
        part=np.concatenate([mesh.part, part]),
        material=np.concatenate([mesh.material, np.full(len(part), len(mesh.materials), dtype=np.uint8)]),
        surface=np.concatenate([mesh.surface, shell.vertices.astype(np.float32)]),
        materials=(*mesh.materials, shell.material),
    )
