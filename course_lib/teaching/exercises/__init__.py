"""The exercises of the course, one file a lesson."""

from course_lib.teaching.exercises import (
    lesson_01,
    lesson_02,
    lesson_03,
    lesson_04,
    lesson_05,
    lesson_06,
    lesson_07,
    lesson_08,
    lesson_09,
)

LESSONS = (lesson_01, lesson_02, lesson_03, lesson_04, lesson_05, lesson_06, lesson_07, lesson_08, lesson_09)
EXERCISES = {exercise.name: exercise for lesson in LESSONS for exercise in lesson.EXERCISES}
