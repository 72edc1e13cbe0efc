"""Pictures of results: ``draw_*`` draw on one image, ``draw_sheet`` writes a sheet of many."""

from unihap.visualize.draw import class_colours, draw_boxes, draw_label_map, draw_pose
from unihap.visualize.sheet import draw_sheet

__all__ = ["class_colours", "draw_boxes", "draw_label_map", "draw_pose", "draw_sheet"]
