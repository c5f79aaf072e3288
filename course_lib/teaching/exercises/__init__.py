"""The exercises of the course, one file a lesson."""

from course_lib.teaching.exercises import lesson_01

EXERCISES = {exercise.name: exercise for exercise in [*lesson_01.EXERCISES]}
