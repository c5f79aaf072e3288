"""The exercises of the course, one file a lesson."""

from course_lib.teaching.exercises import lesson_01, lesson_02, lesson_03

EXERCISES = {
    exercise.name: exercise for exercise in [*lesson_01.EXERCISES, *lesson_02.EXERCISES, *lesson_03.EXERCISES]
}
